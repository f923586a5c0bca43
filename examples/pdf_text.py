"""The text of PDF documents, ten pages a task. It needs pypdf on the nodes (pip install pypdf).

    p2premap run examples/pdf_text.py REPORT.pdf https://example.com/other.pdf -o texts/

A document of a thousand pages is read by as many machines as there are. `merge` puts the pages of each document
together, and writes one text file for each.
"""

from pathlib import PurePath

from pypdf import PdfReader

import p2premap

PAGES = 10


class PdfText(p2premap.Action):
    def split(self):
        """A task for some pages; each gets the whole document, which is kept once and fetched where it is not yet."""
        kept = self.save(self.input_path)
        for first in range(0, len(PdfReader(self.input_path).pages), PAGES):
            yield {"pdf": kept, "name": PurePath(self.input).stem, "first": first}

    def process(self):
        pages = PdfReader(self.local(self.input["pdf"])).pages[self.input["first"] :][:PAGES]
        text = "".join(page.extract_text() + "\f" for page in pages)
        return {"name": self.input["name"], "first": self.input["first"], "text": text}

    def merge(self):
        """What comes here is in the order of the inputs, and of the pages of each."""
        texts = {}
        for piece in self.input:
            texts[piece["name"]] = texts.get(piece["name"], "") + piece["text"]
        for name, text in texts.items():
            with open(f"{name}.txt", "w") as file:
                file.write(text)
            self.save(f"{name}.txt")
        return {name: text.count("\f") for name, text in texts.items()}
