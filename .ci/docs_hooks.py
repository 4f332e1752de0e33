"""What the documentation needs beyond MkDocs and its plugins; `.ci/mkdocs.yml` names this file.

- `$...$` and `$$...$$` become MathML when a page is built, so that no script has to draw mathematics.
- [`Name`][] in a docstring is the public name `ssntk.Name`.
- `::: names ssntk.kernel` stands for all public names that `ssntk/__init__.pyi` takes from there, in its order.
- `::: schema` is what `ssntk sweep --schema` prints, `::: sweeps` are the shipped sweep files, and `::: records` is what a
  record holds.
- Each example is a page, made of its own text and code.
"""

import ast
import contextlib
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

from latex2mathml.converter import convert
from markdown import Extension
from markdown.blockprocessors import BlockProcessor
from markdown.inlinepatterns import InlineProcessor
from markdown.util import AtomicString
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def public_names():
    """(name, where it is defined) of all that `ssntk/__init__.pyi` makes public, in its order."""
    tree = ast.parse((ROOT / "ssntk" / "__init__.pyi").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    aliases = [(f"ssntk.{node.module}." if node.module else "ssntk.", alias) for node in imports for alias in node.names]
    return [(alias.asname, module + alias.name) for module, alias in aliases]


# Mathematics


def mathml(tex, display):
    # HTML knows the elements without their namespace.
    text = convert(tex, display="block" if display else "inline").replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")
    math = ET.fromstring(text)
    for element in math.iter():
        element.text = element.text and AtomicString(element.text)
        if element.tag == "mo" and element.text in ("|", "\u2223"):
            # Bars are fences here, not relations.
            element.attrib |= {"stretchy": "false", "lspace": "0", "rspace": "0"}
    return math


class _Inline(InlineProcessor):
    def handleMatch(self, m, data):
        return mathml(m.group(1), False), m.start(0), m.end(0)


class _Display(BlockProcessor):
    def test(self, parent, block):
        return block.startswith("$$") and block.rstrip().endswith("$$")

    def run(self, parent, blocks):
        holder = ET.SubElement(parent, "div", {"class": "display"})
        holder.append(mathml(blocks.pop(0).strip().strip("$"), True))


class Mathematics(Extension):
    def extendMarkdown(self, md):
        # Above backslash escapes, below code.
        md.inlinePatterns.register(_Inline(r"(?<![\\$\w])\$(?=[^\s$])([^$]+?)(?<=\S)\$(?![\w$])", md), "mathml", 185)
        md.parser.blockprocessors.register(_Display(md.parser), "mathml", 80)


def on_config(config):
    config.markdown_extensions.append(Mathematics())
    names = [{_title(path): f"examples/{path.stem}.md"} for path in EXAMPLES]
    config.nav = [{"Examples": names} if item == {"Examples": "EXAMPLES"} else item for item in config.nav]
    return config


# Pages


def _title(path):
    return re.search(r"^# # (.*)$", path.read_text(), re.M).group(1)


def _example(path):
    """A page of a percent-format script: its cells of text as text, those of code as code."""
    parts = []
    for cell in re.split(r"^# %%", path.read_text(), flags=re.M):
        head, _, body = cell.partition("\n")
        if head.strip() == "[markdown]":
            parts.append("\n".join(line.removeprefix("#").removeprefix(" ") for line in body.splitlines()))
        elif body.strip():
            parts.append((f"**{head.strip()}**\n\n" if head.strip() else "") + f"```py\n{body.strip()}\n```")
    if parts:
        title, _, rest = parts[0].strip().partition("\n")
        parts[0] = f"{title}\n\n`examples/{path.name}`\n{rest}"
    return "\n\n".join(parts) + "\n"


def on_files(files, config):
    for path in EXAMPLES:
        files.append(File.generated(config, f"examples/{path.stem}.md", content=_example(path)))
    return files


def _names(match):
    rooms = match.group(1).split()
    chosen = [name for name, full in public_names() if any(f"{full}.".startswith(f"{room}.") for room in rooms)]
    if not chosen:
        raise ValueError(f"no public name comes from {match.group(1)}")
    return "\n\n".join(f"::: ssntk.{name}" for name in chosen)


def _printed(*arguments):
    """What Python prints in an environment that holds the package."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def _schema(match):
    return f"```toml\n{_printed('-m', 'ssntk', 'sweep', '--schema')}```"


def _sweeps(match):
    return "\n\n".join(
        f"### {path.name}\n\n```toml\n{path.read_text()}```" for path in sorted((ROOT / "sweeps").glob("*.toml"))
    )


def _records(match):
    source = "quantities.cycle import OF_CYCLES" if match.group(1) else "record import VARIABLES"
    code = (
        f"from ssntk.sweep.{source} as held"
        + """
for name, one in held.items():
    meaning = one.meaning.replace("|", chr(92) + "|")
    print(f"| `{name}` | {meaning} | {'' if one.dtype is str else one.units} | {', '.join(one.dims)} |")
"""
    )
    return f"| variable | meaning | units | over |\n|---|---|---|---|\n{_printed('-c', code)}"


def on_page_markdown(markdown, page, config, files):
    markdown = re.sub(r"^::: names (.+)$", _names, markdown, flags=re.M)
    markdown = re.sub(r"^::: schema$", _schema, markdown, flags=re.M)
    markdown = re.sub(r"^::: sweeps$", _sweeps, markdown, flags=re.M)
    markdown = re.sub(r"^::: (cycle )?records$", _records, markdown, flags=re.M)
    # The pages are read in the repository too, where an example is a file.
    return re.sub(r"\]\(((?:\.\./)*)\.\./examples/(\w+)\.py\)", r"](\1examples/\2.md)", markdown)


# Cross references


@event_priority(100)
def on_env(env, config, files):
    """Before autorefs resolves what stands in docstrings. A name that exists and is not public stays what it is: code."""
    autorefs = config.plugins["autorefs"]
    text = "\n".join(path.read_text() for path in (ROOT / "ssntk").rglob("*.py"))
    inner = set()
    for name in set(re.findall(r"\[`([\w.]+)`\]\[\]", text)):
        for module in ("ssntk", "ssntk.normal_forms"):
            with contextlib.suppress(KeyError):
                autorefs.register_url(name, autorefs.get_item_url(f"{module}.{name}")[0])
                break
        else:
            if re.search(rf"^ *(?:def|class) {re.escape(name)}\b", text, re.M):
                inner.add(name)
    for file in files:
        if file.page and file.page.content and inner:
            pattern = rf"<autoref [^>]*identifier=\"(?:{'|'.join(map(re.escape, inner))})\"[^>]*>(.*?)</autoref>"
            file.page.content = re.sub(pattern, r"\1", file.page.content)
