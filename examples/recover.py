"""Recover what failed with an error, five first, and print how it ended: recover.py http://localhost:30080 "503 Service"."""
import json, sys, time, urllib.request

def call(method, **request):
    url = f"{sys.argv[1]}/aloft.v1.RecoveryService/{method}"
    asked = urllib.request.Request(url, json.dumps(request).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(asked))

selection = {"project": "flytesnacks", "domain": "development", "error": sys.argv[2]}
job = call("CreateRecoveryJob", selection=selection, canary=5)
while job["phase"] not in ("PAUSED", "ENDED"):
    time.sleep(1)
    job = call("GetRecoveryJob", name=job["name"])["job"]
print(job["phase"], job["counts"], job.get("reason", ""))
