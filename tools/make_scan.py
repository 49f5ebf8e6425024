"""Makes the sample scan of `lonedot try`: three pages, each one JPEG picture in a PDF, as a copier makes them.

    python -m tools.make_scan src/lonedot/cli/samples/scan.pdf

Needs Pillow, which is no dependency of Lonedot: the PDF is kept in the repository, and this is run only to change it.
The pages are drawn with a fixed seed. The last octets of the file are `%%EOF` and one LF, which is what the story of
the faulty sink turns on. Company, people and goods are invented.
"""

from __future__ import annotations

import argparse
import importlib
import io
import math
import random
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

DPI = 120
WIDTH, HEIGHT = 992, 1403  # A4 at 120 dots per inch
POINTS = (595.28, 841.89)
QUALITY = 58
INK = (38, 38, 46)
BLUE = (32, 58, 130)
STAMP = (176, 38, 44)
PAPER = (249, 248, 243)

LETTER = (
    "Dear Ms Aldous,",
    "",
    "Enclosed is the delivery note for the second part of your order 40-1187. The crates left our",
    "store in Tarn Valley on Monday; the driver has been told to use the rear entrance, since the",
    "front gate is closed until the paving is finished.",
    "",
    "Two things differ from the order. The pears were graded this week and came out one size",
    "smaller than we had promised; we have charged them at the lower price. Of the quinces only",
    "eleven crates were ready. The missing five follow with the next lorry and are not on this",
    "note, so that your goods-in desk has nothing to chase.",
    "",
    "Please have the sheet on the next page signed and sent back by scan. Our accounts program",
    "waits for it before it writes the invoice, and it can only read what comes by e-mail. If the",
    "picture of the label on page three does not match what stands on the crates, ring before",
    "you unload: then the pallets were mixed up at the depot, as in the spring.",
    "",
    "With kind regards,",
)

ROWS = (
    ("4021", "Apples, Ribston, class I", "24", "12.5 kg", "18.40", "441.60"),
    ("4022", "Apples, Blenheim, class I", "16", "12.5 kg", "17.90", "286.40"),
    ("4107", "Pears, Conference, 55-60 mm", "30", "10.0 kg", "14.20", "426.00"),
    ("4115", "Pears, Comice, 60-65 mm", "8", "10.0 kg", "21.75", "174.00"),
    ("4230", "Quinces, mixed sizes", "11", "8.0 kg", "19.60", "215.60"),
    ("4302", "Plums, late, in trays", "20", "5.0 kg", "9.85", "197.00"),
    ("9001", "Crates, returnable (deposit)", "109", "", "1.50", "163.50"),
    ("9014", "Pallets, returnable (deposit)", "4", "", "8.00", "32.00"),
)


def pillow(name: str) -> ModuleType:
    """A module of Pillow; ends with a plain message when it is not installed."""
    try:
        return importlib.import_module(f"PIL.{name}")
    except ModuleNotFoundError:
        raise SystemExit("tools.make_scan needs Pillow: python -m pip install pillow") from None


class Page:
    """One sheet on the glass: drawn straight, then turned a little, shaded and made grainy as a scanner does."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.image = pillow("Image").new("RGB", (WIDTH, HEIGHT), PAPER)
        self.draw = pillow("ImageDraw").Draw(self.image)

    def text(self, x: int, y: int, words: str, size: int = 19, ink: tuple[int, int, int] = INK) -> None:
        self.draw.text((x, y), words, font=pillow("ImageFont").load_default(size), fill=ink)

    def right(self, x: int, y: int, words: str, size: int = 19) -> None:
        font = pillow("ImageFont").load_default(size)
        self.draw.text((x - font.getlength(words), y), words, font=font, fill=INK)

    def rule(self, y: int, left: int = 90, right: int = WIDTH - 90, width: int = 1) -> None:
        self.draw.line((left, y, right, y), fill=INK, width=width)

    def letterhead(self) -> None:
        self.draw.ellipse((90, 74, 142, 126), fill=(70, 112, 58))
        self.draw.polygon(((116, 84), (136, 58), (122, 88)), fill=(96, 138, 66))
        self.text(158, 74, "TARN VALLEY ORCHARDS", 32, (52, 88, 44))
        self.text(160, 110, "Growers' store · Mill Lane · Tarn Valley", 16)
        self.rule(142, width=3)

    def foot(self, number: int) -> None:
        self.rule(HEIGHT - 108)
        self.text(90, HEIGHT - 100, "Delivery note 40-1187/2", 15)
        self.right(WIDTH - 90, HEIGHT - 100, f"page {number} of 3", 15)

    def stamp(self, x: int, y: int, lines: Sequence[str], degrees: float) -> None:
        """Rubber on paper: a frame with words, turned, and with places where the ink did not take."""
        image = pillow("Image")
        layer = image.new("L", (330, 136), 0)
        pen = pillow("ImageDraw").Draw(layer)
        pen.rounded_rectangle((6, 6, 323, 129), radius=14, outline=255, width=6)
        for row, words in enumerate(lines):
            size = 36 if row == 0 else 24
            font = pillow("ImageFont").load_default(size)
            pen.text((165 - font.getlength(words) / 2, 18 + row * 46), words, font=font, fill=255)
        for _ in range(900):
            at_x, at_y = self.rng.randrange(330), self.rng.randrange(136)
            pen.ellipse((at_x, at_y, at_x + self.rng.randrange(3), at_y + self.rng.randrange(3)), fill=0)
        layer = layer.rotate(degrees, expand=True, resample=image.Resampling.BICUBIC)
        layer = layer.point(lambda level: int(level * 0.8))
        self.image.paste(STAMP, (x, y), layer)

    def signature(self, x: int, y: int, phase: float) -> None:
        """A stroke of a pen that nobody can read."""
        points = []
        for step in range(150):
            t = step / 149
            wave = math.sin(phase + t * 31) * (26 - 16 * t) + math.sin(phase * 2 + t * 12) * 12
            points.append((x + t * 250 + math.cos(t * 31 + phase) * 11, y + wave))
        self.draw.line(points, fill=BLUE, width=3, joint="curve")

    def photograph(self, left: int, top: int, right: int, bottom: int) -> None:
        """Crates before a hillside, in the evening: broad tones and fine grain, as a photograph has."""
        image = pillow("Image")
        width, height = right - left, bottom - top
        picture = image.new("RGB", (width, height))
        pen = pillow("ImageDraw").Draw(picture)
        for y in range(height):
            share = y / height
            pen.line(
                (0, y, width, y), fill=(int(236 - 40 * share), int(196 - 30 * share), int(150 + 20 * share))
            )
        for number, (base, swing, tone) in enumerate(
            ((0.42, 0.09, (128, 142, 150)), (0.52, 0.06, (96, 122, 92)), (0.62, 0.03, (74, 100, 58)))
        ):
            ridge = [
                (x, height * (base + swing * math.sin(x / (97 - 20 * number) + number * 2)))
                for x in range(0, width + 8, 8)
            ]
            pen.polygon([*ridge, (width, height), (0, height)], fill=tone)
        for column in range(5):
            for row in range(3 - column % 2):
                self._crate(pen, 44 + column * 138, height - 96 - row * 84)
        blurred = picture.filter(pillow("ImageFilter").GaussianBlur(0.8))
        self.image.paste(blurred, (left, top))
        self.draw.rectangle((left, top, right, bottom), outline=INK, width=2)

    def _crate(self, pen: ModuleType, x: int, y: int) -> None:
        for _ in range(14):
            at_x, at_y = x + self.rng.randrange(6, 104), y - 8 + self.rng.randrange(12)
            red = self.rng.randrange(150, 220)
            pen.ellipse(
                (at_x - 10, at_y - 10, at_x + 10, at_y + 10), fill=(red, self.rng.randrange(60, 130), 40)
            )
        for slat in range(3):
            tone = self.rng.randrange(-12, 12)
            top = y + 8 + slat * 23
            pen.rectangle((x, top, x + 116, top + 18), fill=(168 + tone, 126 + tone, 78 + tone))
            pen.line((x, top + 18, x + 116, top + 18), fill=(96, 68, 38), width=2)
        pen.rectangle((x, y + 4, x + 9, y + 78), fill=(140, 100, 60))
        pen.rectangle((x + 107, y + 4, x + 116, y + 78), fill=(140, 100, 60))

    def scanned(self, degrees: float) -> bytes:
        """The JPEG file: slightly turned, darker at the book's fold, with noise, dust and a soft lens."""
        image, chops = pillow("Image"), pillow("ImageChops")
        sheet = self.image.rotate(degrees, fillcolor=(226, 225, 222), resample=image.Resampling.BICUBIC)
        sheet = sheet.filter(pillow("ImageFilter").GaussianBlur(0.45))
        shade = image.new("L", (WIDTH, 1))
        for x in range(WIDTH):
            shade.putpixel((x, 0), 255 - int(34 * math.exp(-x / 46)) - int(10 * math.exp((x - WIDTH) / 30)))
        shadow = image.merge("RGB", [shade.resize((WIDTH, HEIGHT))] * 3)
        sheet = chops.multiply(sheet, shadow)
        octets = self.rng.randbytes(WIDTH * HEIGHT)
        grain = image.frombytes("L", (WIDTH, HEIGHT), octets).point(lambda level: 124 + level // 32)
        sheet = chops.add(sheet, image.merge("RGB", [grain] * 3), scale=1, offset=-128)
        dust = pillow("ImageDraw").Draw(sheet)
        for _ in range(40):
            x, y = self.rng.randrange(WIDTH), self.rng.randrange(HEIGHT)
            dust.ellipse((x, y, x + self.rng.randrange(3), y + self.rng.randrange(3)), fill=(120, 118, 112))
        file = io.BytesIO()
        sheet.save(file, "JPEG", quality=QUALITY, dpi=(DPI, DPI))
        return file.getvalue()


def letter(rng: random.Random) -> bytes:
    page = Page(rng)
    page.letterhead()
    page.text(90, 196, "Aldous & Finch Grocers\nMs R. Aldous\n14 Harbour Street\nWestmere")
    page.right(WIDTH - 90, 196, "Tarn Valley, 9 October")
    page.text(90, 330, "Order 40-1187, second part", 24)
    for row, line in enumerate(LETTER):
        page.text(90, 392 + row * 32, line)
    page.signature(96, 990, 0.6)
    page.text(90, 1040, "J. Okafor-Lindqvist\nDispatch")
    page.stamp(610, 1000, ("RECEIVED", "12 OCT · GOODS IN"), 8.5)
    page.foot(1)
    return page.scanned(0.42)


def note(rng: random.Random) -> bytes:
    page = Page(rng)
    page.letterhead()
    page.text(90, 176, "Delivery note 40-1187/2", 28)
    page.text(90, 222, "Lorry TV-6, rear entrance. Count the crates before signing.", 18)
    columns = (100, 170, 560, 660, 790, WIDTH - 100)
    heads = ("No.", "Goods", "Crates", "Weight", "Price", "Amount")
    page.draw.rectangle((90, 268, WIDTH - 90, 308), fill=(222, 228, 214))
    for place, (at, words) in enumerate(zip(columns, heads, strict=True)):
        (page.text if place < 2 else page.right)(at, 276, words, 18)
    for row, cells in enumerate(ROWS):
        y = 322 + row * 46
        for place, (at, words) in enumerate(zip(columns, cells, strict=True)):
            (page.text if place < 2 else page.right)(at, y, words, 18)
        page.rule(y + 34)
        page.draw.line((576, y + 14, 584, y + 24, 600, y - 2), fill=BLUE, width=3)
    total = sum(float(cells[-1]) for cells in ROWS)
    page.right(WIDTH - 230, 706, "Goods and deposits, without tax", 20)
    page.right(WIDTH - 100, 706, f"{total:.2f}", 20)
    page.rule(738, left=WIDTH - 400, width=3)
    page.text(90, 800, "Weight by kind of fruit, in kilograms", 20)
    for row, (words, kilograms) in enumerate(
        (("Apples", 500), ("Pears", 380), ("Quinces", 88), ("Plums", 100))
    ):
        y = 842 + row * 44
        page.text(100, y, words, 18)
        page.draw.rectangle((210, y, 210 + kilograms, y + 26), fill=(128, 158, 104), outline=INK)
        page.text(222 + kilograms, y + 2, str(kilograms), 17)
    page.text(90, 1064, "Received complete and undamaged:", 20)
    page.rule(1158, right=440)
    page.text(90, 1164, "name, date", 15)
    page.signature(120, 1122, 2.1)
    page.stamp(590, 1040, ("CHECKED", "109 CRATES · 4 PALLETS"), -5.5)
    page.foot(2)
    return page.scanned(-0.31)


def label(rng: random.Random) -> bytes:
    page = Page(rng)
    page.letterhead()
    page.text(90, 176, "The pallets as they left the store", 28)
    page.photograph(90, 232, WIDTH - 90, 760)
    page.text(90, 772, "Ramp 2, Monday evening. The label below is on the short side of every crate.", 17)
    page.draw.rounded_rectangle((150, 836, WIDTH - 150, 1216), radius=18, outline=INK, width=4)
    page.text(186, 860, "TARN VALLEY ORCHARDS", 26)
    page.text(186, 908, "40-1187/2", 84)
    page.text(190, 1010, "Aldous & Finch · Westmere · rear entrance", 20)
    x = 190
    while x < WIDTH - 200:
        width = rng.choice((2, 2, 4, 6))
        page.draw.rectangle((x, 1056, x + width - 1, 1160), fill=INK)
        x += width + rng.choice((3, 5, 7))
    page.text(330, 1170, "4 021187 002309", 22)
    page.foot(3)
    return page.scanned(0.18)


def pdf_of(pictures: Sequence[bytes]) -> bytes:
    """A PDF 1.4 with one page for each JPEG, numbered references and a table of places; ends `%%EOF` LF."""
    count = len(pictures)
    kids = b" ".join(b"%d 0 R" % (4 + 3 * page) for page in range(count))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count %d /Kids [%s] >>" % (count, kids),
        b"<< /Producer (Larkspur C3140) /Title (Scan) /CreationDate (D:20251012091433Z) >>",
    ]
    for page, picture in enumerate(pictures):
        number = 4 + 3 * page
        drawing = b"q %.2f 0 0 %.2f 0 0 cm /Scan Do Q\n" % POINTS
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %.2f %.2f] /Contents %d 0 R"
            b" /Resources << /XObject << /Scan %d 0 R >> >> >>" % (*POINTS, number + 1, number + 2)
        )
        objects.append(b"<< /Length %d >>\nstream\n%sendstream" % (len(drawing), drawing))
        objects.append(
            b"<< /Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceRGB"
            b" /BitsPerComponent 8 /Filter /DCTDecode /Length %d >>\nstream\n%s\nendstream"
            % (WIDTH, HEIGHT, len(picture), picture)
        )
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, octets in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, octets)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info 3 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1,
        table,
    )
    return bytes(out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the sample scan of `lonedot try`.")
    parser.add_argument("file", type=Path)
    file: Path = parser.parse_args().file
    rng = random.Random(1187)
    octets = pdf_of([letter(rng), note(rng), label(rng)])
    assert octets.endswith(b"\n%%EOF\n")
    file.write_bytes(octets)
    print(f"{file}: {len(octets)} octets")


if __name__ == "__main__":
    main()
