"""Reads signed links with an unmodified flytekit. Arguments: a JSON object of links. Prints what it got as JSON."""
import json
import os
import sys
import tempfile

from flytekit import FlyteContextManager, StructuredDataset
from flytekit.core.type_engine import TypeEngine
from flytekit.models.core.types import BlobType
from flytekit.models.literals import Blob, BlobMetadata, Literal, Scalar
from flytekit.models.literals import StructuredDataset as StructuredDatasetModel
from flytekit.models.literals import StructuredDatasetMetadata
from flytekit.models.types import StructuredDatasetType
from flytekit.types.directory import FlyteDirectory
from flytekit.types.file import FlyteFile
import pandas

links = json.loads(sys.argv[1])
ctx = FlyteContextManager.current_context()


def file_literal(uri, dimensionality):
    return Literal(scalar=Scalar(blob=Blob(metadata=BlobMetadata(type=BlobType("", dimensionality)), uri=uri)))


def read_file(uri):
    value = TypeEngine.to_python_value(ctx, file_literal(uri, BlobType.BlobDimensionality.SINGLE), FlyteFile)
    with open(value) as f:
        return f.read()


def read_table(uri, format):
    model = StructuredDatasetModel(uri, StructuredDatasetMetadata(StructuredDatasetType(format=format)))
    value = TypeEngine.to_python_value(ctx, Literal(scalar=Scalar(structured_dataset=model)), StructuredDataset)
    return value.open(pandas.DataFrame).all()["x"].tolist()


def crawl(uri):
    folder = TypeEngine.to_python_value(ctx, file_literal(uri, BlobType.BlobDimensionality.MULTIPART), FlyteDirectory)
    return sorted(name for _, name in folder.crawl())


def list_and_read(uri):
    folder = TypeEngine.to_python_value(ctx, file_literal(uri, BlobType.BlobDimensionality.MULTIPART), FlyteDirectory)
    content = {}
    for entry in FlyteDirectory.listdir(folder):
        if isinstance(entry, FlyteFile):
            with open(entry) as f:
                content[os.path.basename(entry.remote_source)] = f.read()
        else:
            content[os.path.basename(entry.remote_source)] = None
    return content


def download(uri):
    local = tempfile.mkdtemp()
    try:
        ctx.file_access.get_data(uri, local, is_multipart=True)
    except Exception as e:
        return type(e).__name__ + ": " + str(e)
    return sorted(os.path.relpath(os.path.join(d, f), local) for d, _, fs in os.walk(local) for f in fs)


def common(urls):
    """The URIs in the literal that a client sends for an uploaded folder, made from its native URLs."""
    from flytekit.core.type_engine import modify_literal_uris
    from flytekit.remote.remote_fs import FlyteFS

    literal = file_literal(FlyteFS.extract_common(urls), BlobType.BlobDimensionality.MULTIPART)
    modify_literal_uris(literal)
    return literal.scalar.blob.uri


print(json.dumps({
    "file": read_file(links["file"]),
    "html": read_file(links["html"]),
    "parquet": read_table(links["parquet"], "parquet"),
    "csv": read_table(links["csv"], "csv"),
    "crawl": crawl(links["folder"]),
    "listdir": list_and_read(links["folder"]),
    "download": download(links["folder"]),
    "common": common(links["native"]),
}))
