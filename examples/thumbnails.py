"""Thumbnails: one image a task, files in and files out. It needs Pillow on the nodes (pip install pillow).

    p2premap run examples/thumbnails.py PICTURES... -o thumbnails/ --option size=160

Pictures may be files, directories, patterns or URLs.
"""

from pathlib import PurePath

from PIL import Image, ImageOps

import p2premap


class Thumbnails(p2premap.Action):
    def process(self):
        size = self.options.get("size", 128)
        with Image.open(self.input_path) as image:
            width, height = image.size
            small = ImageOps.exif_transpose(image).convert("RGB")
        small.thumbnail((size, size))
        small.save("small.jpg")
        name = PurePath(self.input).stem + ".jpg"
        return {"thumbnail": self.save("small.jpg", name=name), "was": [width, height], "is": list(small.size)}
