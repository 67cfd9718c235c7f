"""A page of the manual as HTML: no script, one style sheet, everything from this daemon."""
import html
import posixpath
import re

import pages

LINK = re.compile(r'<a href="([^"]*)"([^>]*)>(.*?)</a>', re.S)


def relative(target, start):
    return posixpath.relpath(target, posixpath.dirname(start) or ".")


def navigation(current, all_pages):
    lines, part = [], None
    for page in all_pages:
        if page.part != part:
            lines += ["</ul>"] * (part is not None) + [f"<p>{html.escape(page.part)}</p>", "<ul>"]
            part = page.part
        here = ' aria-current="page"' if page is current else ""
        lines.append(f'<li><a href="{relative(page.html, current.html)}"{here}>{html.escape(page.title)}</a></li>')
    return "\n".join([*lines, "</ul>"])


def visible_markers(markdown):
    markdown = pages.RUN_BY.sub(r"*The commands of this page are run by \1.*\n", markdown)
    lines = [line for line in markdown.split("\n") if not pages.BLOCK_RUN_BY.match(line)]
    return "\n".join(f"{match[1]}*Not run by the manual's tests: {match[2]}.*\n" if (match := pages.NOT_RUN.match(line)) else line for line in lines)


def body(page, names):
    """Links between pages lead to pages; those to the source tree, which is not here, lose their target but keep their words."""
    def relink(match):
        target, rest, words = match.groups()
        if re.match(r"[a-z]+:|/|#", target):
            return match[0]
        path, _, anchor = target.partition("#")
        name = posixpath.normpath(posixpath.join(posixpath.dirname(page.name), path))
        if name == "../openapi.yaml":
            return f'<a href="{relative("..", page.html)}/"{rest}>{words}</a>'
        if name not in names:
            if not (pages.DOCS / name).exists():
                raise ValueError(f"{page.name}: the link to {target} leads nowhere")
            return words
        return f'<a href="{relative(names[name], page.html)}{"#" + anchor if anchor else ""}"{rest}>{words}</a>'

    return LINK.sub(relink, pages.lowdown(visible_markers(page.markdown), "-thtml"))


def render(page, index, all_pages, names):
    at = all_pages.index(page)
    steps = [f'<a rel="{rel}" href="{relative(other.html, page.html)}">{html.escape(word)}: {html.escape(other.title)}</a>'
             for rel, word, other in (("prev", "Before", all_pages[at - 1] if at else None), ("next", "Next", all_pages[at + 1] if at + 1 < len(all_pages) else None)) if other]
    home = relative(".", page.html)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(page.title)} - {html.escape(index["title"])}</title>
<link rel="stylesheet" href="{home}/manual.css">
</head>
<body>
<header><a href="{home}/">{html.escape(index["title"])}: the manual</a> <a href="/ui/">Dashboard</a> <a href="/docs/">API</a> <a href="/problems">Problems</a></header>
<div class="columns">
<nav aria-label="Chapters"><details open><summary>Chapters</summary>
{navigation(page, all_pages)}
</details></nav>
<main>
{body(page, names)}
<footer>{" ".join(steps)}</footer>
</main>
</div>
</body>
</html>
"""


def check_anchors(rendered):
    """Every fragment that a link names is there."""
    ids = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in rendered.items()}
    for name, text in rendered.items():
        for target in re.findall(r'<a [^>]*href="([^":]*#[^"]+)"', text):
            path, _, anchor = target.partition("#")
            other = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
            if anchor not in ids.get(other, ()):
                raise ValueError(f"{name}: {target} names no heading")


def write(out, index, all_pages):
    names = {page.name: page.html for page in all_pages}
    rendered = {page.html: render(page, index, all_pages, names) for page in all_pages}
    check_anchors(rendered)
    for name, text in rendered.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
