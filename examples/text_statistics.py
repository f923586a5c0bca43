"""An action: one input a task, split into chapters, and everything merged into one report.

    p2premap run examples/text_statistics.py BOOKS... -o report/ --option longest=5

Inputs may be files, URLs, or both. `report/` gets the result (a line of JSON) and the file that `merge` saves.
"""

import re

import p2premap


class TextStatistics(p2premap.Action):
    def split(self):
        """A task for each chapter of the text, without sending the text to where it is already."""
        chapters = re.split(r"\n(?=CHAPTER )", self.input_path.read_text(errors="replace"))
        for number, chapter in enumerate(chapters):
            (self.work_dir / f"{number}.txt").write_text(chapter)
            yield {
                "text": self.save(f"{number}.txt"),
                "title": chapter.strip().splitlines()[0] if number else "(front)",
            }

    def process(self):
        path = self.local(self.input["text"])
        counted = self.run_command(["wc", "-w", path])
        words = path.read_text().split()
        longest = sorted(set(words), key=len)[-self.options.get("longest", 3) :]
        return {"title": self.input["title"], "words": int(counted.output.split()[0]), "longest": longest}

    def merge(self):
        with open("chapters.txt", "w") as file:
            for chapter in self.input:
                print(f"{chapter['words']:8} {chapter['title']}", file=file)
        self.save("chapters.txt")
        longest = max((word for chapter in self.input for word in chapter["longest"]), key=len, default="")
        return {"chapters": len(self.input), "words": sum(one["words"] for one in self.input), "longest": longest}
