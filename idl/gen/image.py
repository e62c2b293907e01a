"""Write every descriptor of the installed flyteidl package, and all that they refer to, as one FileDescriptorSet.

usage: image.py OUTPUT

Files are ordered so that each comes after what it imports, and by name otherwise: equal wheels give equal bytes.
"""

import importlib
import pathlib
import sys

import flyteidl
from google.protobuf import descriptor_pb2


def modules(package):
    """The names of all generated message modules below a package; some of its folders have no __init__.py."""
    for folder in package.__path__:
        root = pathlib.Path(folder)
        for path in root.rglob("*_pb2.py"):
            yield ".".join((package.__name__, *path.relative_to(root).with_suffix("").parts))


def collect(file, image, seen):
    """Append a file after everything it imports."""
    if file.name in seen:
        return
    seen.add(file.name)
    for dependency in sorted(file.dependencies, key=lambda f: f.name):
        collect(dependency, image, seen)
    file.CopyToProto(image.file.add())


def main(output):
    image, seen = descriptor_pb2.FileDescriptorSet(), set()
    for name in sorted(set(modules(flyteidl))):
        collect(importlib.import_module(name).DESCRIPTOR, image, seen)
    pathlib.Path(output).write_bytes(image.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main(sys.argv[1])
