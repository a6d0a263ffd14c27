"""The page of the few-shot study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from clipcifar.core.counts import count_of
from clipcifar.core.files import Attribute
from clipcifar.evaluation.words import p_text, with_interval
from clipcifar.render import charts, study
from clipcifar.render.study import Chart, Section, Table
from clipcifar.studies.few_shot.findings import verdicts
from clipcifar.studies.few_shot.methods import METHODS, MIXING, WEIGHTED
from clipcifar.studies.few_shot.params import FewShotParams
from clipcifar.studies.few_shot.points import Findings, Point

_QUESTION = (
    "How many labelled images per class does each method need to beat zero-shot? Every draw "
    "takes k images per "
    "class to learn from and a few more to choose hyper-parameters by; test only scores what was chosen."
)
_COVERS = (
    "Intervals and p values cover other draws and other test images; with all images, and without any, there "
    "is one draw, and they cover other test images alone, as those of the main page do."
)
_COMMANDS = [
    "clipcifar study few_shot",
    "dvc metrics diff --targets data/studies/few_shot/metrics.json",
    "dvc plots show data/studies/few_shot/curves.csv -x log2_images_per_class -y accuracy --template methods",
]


def render(
    findings: Findings,
    params: FewShotParams,
    *,
    attributes: Mapping[str, Attribute],
    active: str,
    notes: Sequence[str] = (),
) -> str:
    """The whole page as HTML.

    Args:
        attributes: of the embeddings.
        active: the prompt set that zero-shot uses.
        notes: said before what was found.
    """
    return study.render(
        name="few_shot",
        title="Few-shot learning",
        question=_QUESTION,
        verdicts=[*notes, *verdicts(findings), _COVERS],
        sections=[_curves(findings, active), _differences(findings), _protocol(findings, params)],
        attributes=attributes,
        commands=_COMMANDS,
    )


def _chart(findings: Findings) -> Markup:
    places = {point.shots: math.log2(point.n_train / findings.num_classes) for point in findings.points}
    series = {}
    for method, title in METHODS.items():
        points = findings.of(method)
        series[title] = charts.Line(
            [places[point.shots] for point in points],
            [point.accuracy.mean for point in points],
            [max(0.0, point.accuracy.low) for point in points],
            [min(1.0, point.accuracy.high) for point in points],
        )
    return charts.curves(
        series,
        name="few-shot-curves",
        description="Lines: test accuracy by number of labelled images per class, one per method",
        x_label="labelled images per class (logarithmic)",
        y_label="test accuracy",
        x_ticks={place: shots for shots, place in places.items()},
        levels={"zero-shot": findings.zero_shot, WEIGHTED: findings.weighted.accuracy.mean},
    )


def _curves(findings: Findings, active: str) -> Section:
    shots = [point.shots for point in findings.of("class_mean")]
    rows = [[title, *(_cell(point) for point in findings.of(method))] for method, title in METHODS.items()]
    levels = {"zero-shot": findings.zero_shot, WEIGHTED: findings.weighted.accuracy.mean}
    rows += [[title, *(f"{accuracy:.4f}" for _ in shots)] for title, accuracy in levels.items()]
    rows.append(["val images of a draw", *(f"{point.n_val:,}" for point in findings.of("class_mean"))])
    return Section(
        "curves",
        "Curves",
        paragraphs=[f"Zero-shot is the prompt set {active}, on {count_of(findings.n, 'test image')}."],
        charts=[
            Chart(
                "Accuracy by images per class",
                _chart(findings),
                "Mean over draws; bands are 95 % t intervals of that mean over draws, on these test images. "
                "With all images there is one draw and no band.",
            )
        ],
        tables=[
            Table(
                "test accuracy by images per class",
                ["method", *shots],
                rows,
                note="Mean ± standard deviation over draws.",
            ),
            Table(
                "draws that chose zero-shot itself",
                ["method", *shots],
                [
                    [METHODS[method], *(f"{p.n_zero_shot} of {p.accuracy.n}" for p in findings.of(method))]
                    for method in MIXING
                ],
                note="Draws that chose zero-shot itself, of methods that mix with it: their images did not "
                "speak for more.",
            ),
        ],
    )


def _cell(point: Point) -> str:
    spread = point.accuracy
    return f"{spread.mean:.4f}" + (f" ± {spread.deviation:.4f}" if spread.n > 1 else "")


def _differences(findings: Findings) -> Section:
    titles = {**METHODS, findings.weighted.method: WEIGHTED}
    points = [findings.weighted, *(point for method in METHODS for point in findings.of(method))]
    rows = [[titles[p.method], p.shots, with_interval(p.versus), p_text(p.p_holm), p.outcome] for p in points]
    return Section(
        "differences",
        "Against zero-shot",
        paragraphs=[
            "Every draw is tested on the same images, so differences vary by draw and by image. "
            "The intervals "
            "cover both, other draws and other test images; with all images, and without any, "
            "there is one draw, and only images vary: there they are McNemar's and Bonett and Price's. "
            f"P values are Holm-corrected over all {len(rows)} comparisons. Methods are compared with "
            "zero-shot here, not with one another."
        ],
        tables=[
            Table(
                "difference from zero-shot",
                ["method", "images per class", "points", "p", "outcome"],
                rows,
            )
        ],
    )


def _protocol(findings: Findings, params: FewShotParams) -> Section:
    if params.val_per_class is None:
        bound = (
            "Every draw chooses on all of val, far more labels than it learns from: these curves are better "
            "than what so few labels can give. Set few_shot.val_per_class to bound it."
        )
    else:
        bound = (
            "Val has far more images than a small draw. Choosing on all of them would be "
            "learning from labels "
            f"that the k leaves out, so a draw of k chooses on min(k, {params.val_per_class}) val "
            "images per class, "
            "as CoOp does; the labels it costs are both together. With all images, all of val chooses."
        )
    return Section(
        "protocol",
        "How it is done",
        paragraphs=[
            f"{len(params.seeds)} draws for each number of images. A draw ranks the train part of "
            "the split by the "
            "sha256 of its seed and sample id, so draws of one seed are nested.",
            bound,
            "Each choice asks the labels of a draw twice: val judges what was learnt from train, and then as "
            "many images of train judge what was learnt from the rest and val. What is tested has learnt "
            "from train alone. With all images, or where all of val chooses, val alone judges.",
            "The choice is by likelihood, because the accuracy of a few dozen images is too coarse, and at "
            "each candidate's own temperature, or the surer one would pass for the better one. Methods that "
            "mix with zero-shot have it as a candidate, and of all candidates within one standard error of "
            "the likeliest, by paired differences, the one nearest to zero-shot is taken. With all images no "
            "method is fitted again on train and val together, so linear probe and GDA can differ from "
            "those of the main page.",
            "Published few-shot numbers are often chosen on test: the code of Tip-Adapter takes the best "
            "epoch of Tip-Adapter-F by test accuracy, and on ImageNet α and β too; that of GDA takes test "
            "for val on ImageNet. Here test chooses nothing.",
            "Nearest class mean: cosine with the normalised mean embedding of each class; nothing to choose.",
            "Nearest neighbours: what most of the images nearest by cosine are; their number chosen.",
            "Linear probe: multinomial logistic regression from scratch, C chosen.",
            "Linear probe beside text, after LP++ (Huang et al., CVPR 2024): logits x·w plus α times the "
            "zero-shot logits, w penalised and without intercepts, solved to its optimum; α and C chosen, "
            "one α for all classes. LP++ learns one α per class in a few steps instead.",
            "CLAP (Silva-Rodriguez et al., CVPR 2024): a linear probe that starts at the text embeddings and "
            "pays for leaving them, for each class as much as zero-shot is right about its images. Nothing "
            "is chosen, so it needs no val image.",
            "GDA (Wang et al., ICLR 2024): zero-shot logits plus α times the log posterior of Gaussians with "
            "one shrunk covariance; α chosen.",
            "Tip-Adapter (Zhang et al., ECCV 2022): zero-shot logits plus α times votes exp(−β(1 − cosine)) "
            "of the labelled images, averaged per class; α and β chosen.",
            "Tip-Adapter-F: its keys learnt by Adam at the likeliest α above 0; epoch, then α and β again, "
            "chosen. Embeddings are cached, so images are not augmented. At most "
            f"{params.finetuned_per_class} keys per class are learnt, from all images of the draw.",
            "Zero-shot with weighted prompts (ZPE, Allingham et al., ICML 2023) is that of the main page: "
            "all templates of the pool and the sets, weighted by train images without their labels.",
        ],
    )
