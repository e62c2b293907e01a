"""A task that names its files itself."""

from flytekit import current_context, task, workflow
from flytekit.types.file import FlyteFile


@task
def write(text: str) -> FlyteFile:
    path = current_context().raw_output_prefix + "/out.txt"
    with open(path, "w") as f:
        f.write(text)
    return FlyteFile(path, remote_path=False)


@workflow
def written(text: str) -> FlyteFile:
    return write(text=text)
