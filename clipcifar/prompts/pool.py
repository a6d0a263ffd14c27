"""A pool of templates to search beside a person's own sets: 300 plain ways to caption a photograph.

All are our own wording, so that none of them repeats the benchmark templates of params.yaml.
"""

from __future__ import annotations

from dataclasses import replace

from clipcifar.prompts.sets import expand_set
from clipcifar.prompts.templates import PLACEHOLDER, expand_alternatives, normal_form, spoken
from clipcifar.store.prompt_set import PromptSet

NAME = "(pool)"  # which no set of a person's can be called
MAX_SENTENCES = 30_000  # five minutes of text tower on two cores; all 300 templates up to 100 classes
TEMPLATES = (
    "a [photo|picture] [showing|depicting|featuring|containing|with] [a|one|the] {classname}.",
    "an image [showing|depicting|featuring|containing|with] [a|one|the] {classname}.",
    "[a 32x32|a little|a minuscule|a miniature|a thumbnail-sized|a downscaled|an upscaled]"
    " [photo|image|picture] [of|showing] a {classname}.",
    "a [soft|noisy|crisp|hazy|dim|backlit|sunlit|washed-out|garish|compressed]"
    " [photo|image|picture] of [a|the] {classname}.",
    "a [dataset|benchmark|catalog|news|magazine|postcard|passport|travel|vacation] [photo|image]"
    " of [a|the] {classname}.",
    "a [daytime|nighttime|roadside|rural|city|forest] [photo|scene] of [a|the] {classname}.",
    "a [centered|cropped|tilted|wide|tight|partial] [shot|view] of [a|the] {classname}.",
    "a [common|typical|normal|famous|rare|young|big old|single] {classname}[| in a photo].",
    "a {classname}, [seen|photographed|pictured] [from afar|from nearby|from below|head-on|in profile].",
    "a {classname} [in daylight|in the evening|in summer|in winter|in the shade|in motion|standing still].",
    "a {classname} [in its surroundings|against a blurred background|in the foreground].",
    "[this photo shows|this image shows|the picture shows|you can see|we see|here we have]"
    " [a|the] {classname}.",
    "an example of [a|the] {classname}[|, labeled by hand| from a dataset].",
    "[nothing but|mostly|clearly] [a|the] {classname}.",
    "[category|class|object|type]: {classname}.",
)


def size() -> int:
    """How many templates the pool has, alternatives expanded."""
    return sum(len(expand_alternatives(template)) for template in TEMPLATES)


def expand(class_names: list[str], *, dataset: str) -> PromptSet:
    """The pool's sentences for a dataset's C classes.

    Of many classes, an even part of the templates; a template that says of one class what another
    says already, of whatever class, is left out.
    """
    readings = [reading for template in TEMPLATES for reading in expand_alternatives(template)]
    limit = min(len(readings), max(1, MAX_SENTENCES // len(class_names)))
    chosen, said = [], set[str]()
    for i in range(limit):
        template = readings[i * len(readings) // limit]
        sentences = {normal_form(template.replace(PLACEHOLDER, spoken(name))) for name in class_names}
        if len(sentences) == len(class_names) and not sentences & said:
            chosen.append(template)
            said |= sentences
    if not chosen:
        return PromptSet(NAME, [], [], [], [], [])
    values = {"template_mode": "shared", "templates": chosen}
    expanded = expand_set("pool", values, class_names=class_names, dataset=dataset)
    assert expanded is not None  # the pool names no dataset
    return replace(expanded, name=NAME)
