"""Draw data/testbed/sprites/sprites.png, one 64 px emoji a row of sprites.csv, from Debian's fonts-noto-color-emoji.

apt-get install fonts-noto-color-emoji
python data/testbed/sprites/make_sprites.py
"""

import csv
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).parent
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
STRIKE = 109  # the one pixel size the bitmap font holds
SIZE, COLUMNS = 64, 11


def draw(character, font):
    """One emoji, cut to its ink and centred on a transparent SIZE x SIZE square."""
    canvas = Image.new("RGBA", (2 * STRIKE, 2 * STRIKE))
    ImageDraw.Draw(canvas).text((STRIKE // 2, STRIKE // 2), character, font=font, embedded_color=True)
    ink = canvas.crop(canvas.getbbox())
    ink.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
    sprite = Image.new("RGBA", (SIZE, SIZE))
    sprite.paste(ink, ((SIZE - ink.width) // 2, (SIZE - ink.height) // 2))
    return sprite


def main():
    if not FONT.exists():
        sys.exit(f"{FONT} is missing: apt-get install fonts-noto-color-emoji")
    font = ImageFont.truetype(str(FONT), STRIKE)
    with open(FOLDER / "sprites.csv", newline="") as lines:
        characters = [chr(int(row["codepoint"], 16)) for row in csv.DictReader(lines)]
    rows = -(-len(characters) // COLUMNS)
    atlas = Image.new("RGBA", (COLUMNS * SIZE, rows * SIZE))
    for i, character in enumerate(characters):
        atlas.paste(draw(character, font), (i % COLUMNS * SIZE, i // COLUMNS * SIZE))
    atlas.save(FOLDER / "sprites.png", optimize=True)


if __name__ == "__main__":
    main()
