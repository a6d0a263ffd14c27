"""Further questions on the same embeddings, a package each; none imports another.

Every study is laid out alike and offers the same names, so that whoever has read one finds the way in all:

    params.py    <Study>Params   its section of params.yaml
    findings.py  measure         what was found on test, as frozen dataclasses
                 as_metrics      that as numbers by name, for metrics.json
                 verdicts        that in sentences, for the page and the terminal
                 write           that as metrics.json, CSV files for plots and, of methods, predictions.h5
    page.py      render          that as a page

What comes before `measure` (draws, mixes, towers, folds) is the study's own, in modules that are named for
it. A study of two stages keeps findings and page in `judge/`, so that a change there makes nothing costly
again. The scripts stand beside their pipelines, in the top-level folder of the same name: they read, call
these, and print.
"""
