import json

import pandas as pd
import pytest

from crate_analysis.training.runs import read_runs


def keep(folder, log=None, **settings):
    folder.mkdir(parents=True)
    recipe = {"arch": "a", "learning_rate": 0.1, "overrides": {}} | settings
    (folder / "recipe.json").write_text(json.dumps(recipe))
    if log is not None:
        (folder / "log.csv").write_text(log)


def test_runs_are_told_by_what_differs_and_their_last_entry(tmp_path):
    keep(tmp_path / "b" / "slow", "step,learning_rate,loss\n1,0.2,3.0\n2,0.0,2.5\n")
    keep(tmp_path / "a", "step,learning_rate,loss\n1,0.9,4.0\n", learning_rate=0.9)
    keep(tmp_path / "c", overrides={"depth": 2})
    found = read_runs(tmp_path)
    assert found.run.tolist() == ["a", "b/slow", "c"]
    assert list(found.columns) == ["run", "learning_rate", "depth", "step", "loss"]
    assert found.learning_rate.tolist() == [0.9, 0.1, 0.1], "the recipe's, not the last step's"
    assert found.loss.tolist()[:2] == [4.0, 2.5]
    assert pd.isna(found.loss[2]) and found.depth[2] == 2


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no runs; name the folder"):
        read_runs(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "x", "a,b\n1,2\n", "step,loss\n", "step,loss\n1,x\n", "\0"]
)
def test_a_damaged_log_is_named(tmp_path, content):
    keep(tmp_path / "a", content)
    with pytest.raises(ValueError, match=r"a/log\.csv is damaged; delete .*a to train it again"):
        read_runs(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"overrides": 3}'])
def test_a_damaged_recipe_is_named(tmp_path, content):
    keep(tmp_path / "a")
    (tmp_path / "a" / "recipe.json").write_text(content)
    with pytest.raises(ValueError, match=r"recipe\.json (is damaged|holds no recipe)"):
        read_runs(tmp_path)
