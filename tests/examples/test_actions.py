"""The actions among the examples, on three nodes: pictures and documents made here."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from p2premap.client.private import PrivateCluster
from tests.cluster import p2premap

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_thumbnails(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (400, 100), "red").save(pictures / "wide.png")
    Image.new("RGBA", (30, 300), (0, 0, 255, 128)).save(pictures / "high.png")
    out = tmp_path / "out"
    done = p2premap(
        three_nodes.home, "run", str(EXAMPLES / "thumbnails.py"), str(pictures), "--option", "size=64", "-o", str(out)
    )
    assert done.exit_code == 0, done.stderr
    sizes = {}
    for path in out.rglob("*.jpg"):
        with Image.open(path) as image:
            sizes[path.name] = image.size
    assert sizes == {"wide.jpg": (64, 16), "high.jpg": (6, 64)}
    told = [json.loads(path.read_text()) for path in sorted(out.glob("part-*"))]
    assert sorted(one["was"] for one in told) == [[30, 300], [400, 100]]


def document(path: Path, pages: list[str]) -> None:
    """A PDF whose pages say these texts."""
    writer = PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for text in pages:
        page = writer.add_blank_page(300, 300)
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = stream
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
    writer.write(path)


def test_pdf_text(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    document(tmp_path / "long.pdf", [f"page {number}" for number in range(23)])
    document(tmp_path / "short.pdf", ["only this"])
    inputs = [str(tmp_path / name) for name in ("long.pdf", "short.pdf")]
    out = tmp_path / "out"
    done = p2premap(three_nodes.home, "run", str(EXAMPLES / "pdf_text.py"), *inputs, "-o", str(out))
    assert done.exit_code == 0, done.stderr
    assert json.loads((out / "part-00000").read_text()) == {"long": 23, "short": 1}
    pages = (out / "long.txt").read_text().split("\f")
    assert [page.strip() for page in pages] == [*(f"page {number}" for number in range(23)), ""]
    assert (out / "short.txt").read_text().strip("\f\n") == "only this"
