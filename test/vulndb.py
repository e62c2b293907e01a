"""A database for govulncheck without the network: made of the Go module golang.org/x/vulndb.

    python3 test/vulndb.py make MODULE FOLDER        then: govulncheck -db file://FOLDER …
    python3 test/vulndb.py check LISTED <FINDINGS    of govulncheck -format json: fails unless they are what the file lists

LISTED has a line for each finding that is known and not mended: its id, the day on which it was looked at, and the reason. Lines
that begin with # say something. A finding that is not listed fails, and so does a line whose finding is gone or that is older than
half a year: it is to be looked at again.
"""

import datetime
import json
import pathlib
import shutil
import sys

KEPT = datetime.timedelta(days=183)


def make(module: pathlib.Path, folder: pathlib.Path) -> None:
    """The layout that https://go.dev/doc/security/vuln/database describes."""
    (folder / "ID").mkdir(parents=True, exist_ok=True)
    (folder / "index").mkdir(exist_ok=True)
    modules: dict[str, dict] = {}
    entries = []
    for file in sorted((module / "data" / "osv").glob("*.json")):
        entry = json.loads(file.read_text())
        shutil.copyfile(file, folder / "ID" / file.name)
        short = {"id": entry["id"], "modified": entry["modified"]}
        entries.append({**short, "aliases": entry.get("aliases", [])})
        for affected in entry["affected"]:
            fixed = [e["fixed"] for r in affected.get("ranges", []) for e in r["events"] if "fixed" in e]
            modules.setdefault(affected["package"]["name"], {})[entry["id"]] = {**short, "fixed": fixed[-1] if fixed else ""}
    if not entries:
        sys.exit(f"{module} has no data/osv: it is no golang.org/x/vulndb")
    index = {
        "db": {"modified": max(e["modified"] for e in entries)},
        "vulns": entries,
        "modules": [{"path": path, "vulns": list(found.values())} for path, found in sorted(modules.items())],
    }
    for name, content in index.items():
        (folder / "index" / f"{name}.json").write_text(json.dumps(content))
    print(f"{len(entries)} vulnerabilities are known, the latest of {index['db']['modified']}")


def messages(text: str):
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        message, end = decoder.raw_decode(text, at)
        yield message
        at = end + len(text[end:]) - len(text[end:].lstrip())


def check(listed: pathlib.Path) -> None:
    found: dict[str, str] = {}
    summary = {}
    for message in messages(sys.stdin.read().strip()):
        if "osv" in message:
            summary[message["osv"]["id"]] = message["osv"].get("summary", "")
        if finding := message.get("finding"):
            at = finding["trace"][0]
            text = f"{at['module']}@{at.get('version', '?')}, fixed in {finding.get('fixed_version') or 'no version'}"
            if "function" in at or "package" in at or finding["osv"] not in found:
                found[finding["osv"]] = text
    known, wrong = set(), []
    for number, line in enumerate(listed.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, day, reason = line.split(maxsplit=2)
            old = datetime.date.fromisoformat(day) + KEPT < datetime.date.today()
        except ValueError:
            wrong.append(f"{listed}:{number}: a line is an id, a day such as 2026-11-28, and a reason: {line}")
            continue
        known.add(name)
        if name not in found:
            wrong.append(f"{listed}:{number}: {name} is not found any more: remove the line")
        elif old:
            wrong.append(f"{listed}:{number}: {name} was looked at on {day} ({reason}): look again, and write today's date or mend it")
    wrong += [f"{name}: {summary.get(name, '')} ({text}): take the version that mends it, or list it in {listed} with the reason" for name, text in sorted(found.items()) if name not in known]
    print(f"{len(found)} findings, {len(known)} of them listed")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", module, folder]:
            make(pathlib.Path(module), pathlib.Path(folder))
        case ["check", listed]:
            check(pathlib.Path(listed))
        case _:
            sys.exit(__doc__)
