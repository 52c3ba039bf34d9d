# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,jupyter,mystnb,-all
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What holds?
#
# The claims of the two papers, and the questions that they lead to, each with the verdict of this run.
# Every number on this page comes from the results that the chapters left when they ran.

# %% tags=["parameters"]
results: str = "output"  # the folder where the chapters, or the runs of a grid, left their results
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
from IPython.display import Markdown, display

from crate_analysis.study import Study
from crate_analysis.study.claims import RULE
from crate_analysis.study.verdicts import claims_table, findings_table, judge, read_results

study = Study(globals(), "00-claims")

# %%
found = read_results(results)
verdicts = judge(found)

# %% jupyter={"source_hidden": true} tags=["hide-input"]
display(Markdown(f"**The rule, declared before the runs.** {RULE}"))

# %% [markdown]
# ## Verdicts
#
# [Table 1](#tab-verdicts-by-claim) has one row a claim. The paper's numbers are the paper's, on photographs and with
# its own networks; ours are of small networks on drawn animals, so a verdict is one on *our setting*.
# Intervals of most findings are over images: those speak of the networks that were measured. Where a
# finding is on a design, its chapter says so, and its interval is over training runs.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table(
    "Each claim, where it is from, the number printed there, the verdict here, and the chapter."
)
def verdicts_by_claim():
    """In the order of the chapters."""
    return claims_table(verdicts)


# %% [markdown]
# ## The findings that decide
#
# [Table 2](#tab-deciding) has every finding that a verdict rests on: our number with its 95 % interval, and
# what it is compared with. A difference is compared with 0.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table("Our findings by claim, with 95 % intervals and rivals.")
def deciding():
    """In the order of the chapters."""
    return findings_table(found)


# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
