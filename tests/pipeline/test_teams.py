"""docs/teams.md and its workflow: their own commands, with a real DVC, a folder as remote, and no GitHub."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.workspace import ROOT, TEXT_SIDE, Workspace, outputs

PAGE = (ROOT / "docs" / "teams.md").read_text()
WORKFLOW = (ROOT / "docs" / "ci" / "metrics.yml").read_text()
BESIDE = {"Install", "Post the comment"}  # steps that need a network
PHOTO = "a photo of a {classname}."


def commands(heading: str) -> list[list[str]]:
    """The console blocks below a heading of the page, each a list of commands without their remarks."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, flags=re.M | re.S)
    blocks = re.findall(r"^```console\n(.*?)^```", section, flags=re.M | re.S)
    return [
        [re.split(r" +# ", line.removeprefix("$ "))[0] for line in block.splitlines()] for block in blocks
    ]


class Team:
    """A project with a git remote and what the page calls `/srv/team`, below `folder`."""

    def __init__(self, finished: Workspace, folder: Path) -> None:
        self.folder, self.srv = folder, folder / "srv"
        self.origin = folder / "project.git"
        self.owner = finished.copy(folder / "owner")
        self.owner.command("git", "branch", "--move", "main")
        self.owner.command("git", "init", "--quiet", "--bare", "--initial-branch", "main", str(self.origin))
        self.owner.command("git", "remote", "add", "origin", str(self.origin))
        self.owner.command("git", "push", "--quiet", "--set-upstream", "origin", "main")
        self.run(self.owner, commands("A remote, once")[0])

    def run(self, workspace: Workspace, lines: list[str], *, check: bool = True, answer: str = "") -> Any:
        script = "\n".join(lines).replace("https://git.example.org/team/project.git", str(self.origin))
        script = script.replace("/srv/team", str(self.srv))
        return workspace.command("bash", "-e", "-c", answer + script, check=check)

    def clone(self, name: str, *options: str) -> Workspace:
        clone = Workspace(self.folder / name)
        self.owner.command("git", "clone", "--quiet", *options, f"file://{self.origin}", str(clone.folder))
        return clone


@pytest.fixture
def team(finished: Workspace, tmp_path: Path) -> Team:
    return Team(finished, tmp_path)


def write(workspace: Workspace, template: str, *, instead_of: str = PHOTO) -> None:
    """Change a template as a person would: no other byte of params.yaml."""
    path = workspace.folder / "params.yaml"
    assert path.read_text().count(instead_of) == 1
    path.write_text(path.read_text().replace(instead_of, template))


def steps() -> dict[str, dict[str, Any]]:
    (job,) = yaml.safe_load(WORKFLOW)["jobs"].values()
    return {step["name"]: step for step in job["steps"] if "run" in step}


def run_workflow(clone: Workspace, *, check: bool = True) -> list[Any]:
    """Every step in order but those `BESIDE`, as the runner's shell would; after one that fails, no more."""
    done = []
    for name, step in steps().items():
        if name not in BESIDE:
            done.append(clone.command("bash", "-e", "-c", step["run"], check=check))
            if done[-1].returncode:
                break
    return done


def merged(team: Team, template: str) -> Workspace:
    """What the runner checks out: a pull request that changes a template, merged, and little history."""
    owner = team.owner
    owner.command("git", "switch", "--quiet", "--create", "edit")
    write(owner, template)
    owner.commit("another template")
    owner.command("git", "switch", "--quiet", "main")
    owner.command("git", "merge", "--quiet", "--no-ff", "--no-edit", "edit")
    owner.command("git", "push", "--quiet")
    return team.clone("runner", "--depth", "2")


@pytest.mark.pipeline
def test_a_pull_request_is_run_and_commented_on_in_a_clone_that_has_nothing(team: Team) -> None:
    clone = merged(team, "one picture of a {classname}.")
    ran = run_workflow(clone)[0].stdout
    assert set(clone.executed()) == TEXT_SIDE
    assert "20 sentences in 2 sets, " in ran
    assert sum(int(new) for new in re.findall(r"(\d+) of them new", ran)) == 10  # by two stages
    base = clone.command("git", "rev-parse", "--short", "HEAD^1").stdout.strip()
    comment = clone.read("comment.md").decode()
    verdict = rf"^workspace is (better|worse) than {base}: [+-]\d+\.\d points \[.+\], p [=<] 0\.\d+; "
    assert re.search(verdict, comment, flags=re.M)
    assert re.search(r"^\| metrics/zero_shot\.json +\| accuracy +\| 0\.\d+ +\| 0\.\d+ +\|", comment, re.M)
    assert re.search(r"^\| all +\| +397 \|", comment, flags=re.M)
    lines = comment.splitlines()
    rules = [number for number, line in enumerate(lines) if re.fullmatch(r"\|(-+:?\|)+", line)]
    for rule in rules:  # GitHub draws a table below an empty line, where all rows have the header's cells
        assert lines[rule - 2] == ""
        assert lines[rule].count("|") == lines[rule - 1].count("|") == lines[rule + 1].count("|")
    assert len(rules) >= 2
    assert len(comment) < 65_536  # as long as a comment may be


@pytest.mark.pipeline
def test_a_commit_that_was_never_pushed_to_the_remote_fails_the_job(team: Team) -> None:
    shutil.rmtree(team.srv)
    clone = team.clone("runner", "--depth", "2")
    last = run_workflow(clone, check=False)[-1]
    assert last.returncode != 0
    assert clone.executed() == []
    assert not (clone.folder / "comment.md").exists()


def test_the_workflow_is_pinned_as_ours_is_and_puts_nothing_of_a_pull_request_into_a_shell() -> None:
    used = set(re.findall(r"uses: (\S+)", WORKFLOW))
    assert used == set(re.findall(r"uses: (\S+)", (ROOT / ".github" / "workflows" / "ci.yml").read_text()))
    settings = yaml.safe_load(WORKFLOW)
    assert settings[True] == {"pull_request": None}  # YAML 1.1 reads `on` as true
    assert settings["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert set(steps()) > BESIDE
    assert not [name for name, step in steps().items() if "${{" in step["run"]]


@pytest.mark.pipeline
def test_a_colleague_pulls_an_edit_and_repeats_nothing(team: Team, tmp_path: Path) -> None:
    owner = team.owner
    (first, *rest), (*clone_lines, setup, pull, repro) = commands("Day by day")
    team.run(owner, [first])
    write(owner, "a scan of a {classname}.")
    team.run(owner, rest)
    assert owner.command("git", "status", "--short").stdout == ""
    assert setup == "make setup && . .venv/bin/activate"
    colleague = tmp_path / "colleague"
    colleague.mkdir()
    at = Workspace(colleague / "project")
    team.run(owner, [f"cd {colleague}", clone_lines[0]])
    assert clone_lines[1:] == ["cd project"]
    team.run(at, [pull, repro])
    assert at.executed() == []
    assert outputs(at) == outputs(owner)


@pytest.mark.pipeline
@pytest.mark.nightly
def test_without_pulling_everything_only_what_is_stale_runs(team: Team) -> None:
    (lines,) = commands("Without pulling everything")
    clone = team.clone("clone")
    team.run(clone, lines[1:])
    assert clone.executed() == []
    assert not (clone.folder / ".dvc" / "cache" / "files").exists()
    (pull,) = re.findall(r"`(dvc pull [^`]*)` then brings", PAGE)
    team.run(clone, [pull])
    assert (clone.folder / "data/predictions/zero_shot.h5").is_file()
    write(clone, "one picture of a {classname}.")
    alone = clone.repro("--allow-missing", check=False)
    assert alone.returncode != 0
    assert "No such file or directory" in alone.stderr
    team.run(clone, lines)
    assert set(clone.executed()) == TEXT_SIDE
    clone.command("dvc", "push", "--run-cache")
    other = team.clone("other")
    write(other, "one picture of a {classname}.")
    team.run(other, lines)
    assert set(other.executed()) == TEXT_SIDE - {"prompts", "embed_active", "embed_texts", "report"}
    for each in (clone, other):
        each.edit(lambda settings: settings["embed"].update(batch_size=7))
        each.repro("--pull", "--allow-missing", "embed_images")
        each.command("dvc", "push", "--run-cache")
    assert other.executed() == []


@pytest.mark.pipeline
@pytest.mark.nightly
@pytest.mark.parametrize("spared", [False, True])
def test_either_side_of_a_conflict_in_dvc_lock_ends_in_the_same_bytes(team: Team, spared: bool) -> None:
    (lines,) = commands("The same stage, twice")
    owner = team.owner
    if spared:
        (attribute,) = re.findall(r"`dvc\.lock (merge=\w+)`", PAGE)
        (owner.folder / ".gitattributes").write_text(
            "".join(f"{path} {attribute}\n" for path in ("dvc.lock", "metrics/**", "plots/**"))
        )
        owner.commit("attributes")
    owner.command("git", "switch", "--quiet", "--create", "edit")
    write(owner, "one picture of a {classname}.")
    owner.repro()
    owner.commit("one picture")
    owner.command("git", "switch", "--quiet", "main")
    scan = "a scan of the handwritten digit {classname}."
    write(owner, "a scan of a digit, {classname}.", instead_of=scan)
    owner.repro()
    owner.commit("a scan of a digit")
    results = []
    for side in ("ours",) if spared else ("ours", "theirs"):
        merge = owner.command("git", "merge", "edit", check=False)
        assert "CONFLICT (content): Merge conflict in dvc.lock" in merge.stdout
        if spared:
            assert b"<<<<<<<" not in owner.read("dvc.lock") + owner.read("metrics/prompt_sets.json")
        else:
            assert owner.command("dvc", "status", check=False).returncode != 0
        settled = [
            line.replace("--ours", f"--{side}") for line in lines if "checkout" not in line or not spared
        ]
        team.run(owner, settled)
        both = owner.read("params.yaml")
        assert b"one picture of" in both
        assert b"a scan of a digit" in both
        assert owner.command("git", "status", "--short").stdout == ""
        assert "up to date" in owner.command("dvc", "status").stdout
        results.append((outputs(owner), owner.read("dvc.lock")))
        owner.command("git", "reset", "--quiet", "--hard", "HEAD^1")
        owner.command("dvc", "checkout")
    assert results[0] == results[-1]


@pytest.mark.pipeline
@pytest.mark.nightly
def test_gc_keeps_what_the_page_says(team: Team) -> None:
    (lines,) = commands("What `dvc gc` deletes")
    owner = team.owner
    shutil.rmtree(team.srv)  # else what is gone here is read from there
    owner.command("dvc", "remote", "remove", "storage")
    owner.command("git", "tag", "first")
    set_templates = 'prompts.sets.photo.templates=["an image of a {classname}."]'
    owner.command("dvc", "exp", "run", "--temp", "--name", "trial", "-S", set_templates, "zero_shot")
    write(owner, "one picture of a {classname}.")
    owner.repro("zero_shot")
    owner.commit("second")

    def readable() -> list[bool]:
        compared = [
            owner.command("clipcifar", "compare", name, "HEAD", check=False) for name in ("first", "trial")
        ]
        return [done.returncode == 0 for done in compared]

    team.run(owner, lines, answer="yes | ")
    assert readable() == [True, True]
    owner.command("dvc", "gc", "--all-commits", "--force")
    assert readable() == [True, False]
    owner.command("dvc", "gc", "--workspace", "--force")
    assert readable() == [False, False]


@pytest.mark.pipeline
@pytest.mark.nightly
def test_with_one_cache_what_one_clone_has_run_another_does_not(team: Team) -> None:
    (lines,) = commands("One machine, several accounts")
    (mask, cache) = (line for line in lines if line.startswith(("umask ", "export ")))
    settings = [line for line in lines if line.startswith("dvc ")]
    assert len(settings) == 3
    clones = [team.clone(name) for name in ("first", "second")]
    for clone in clones:
        clone.environment["CLIPCIFAR_CACHE"] = cache.replace("/srv/team", str(team.srv)).partition("=")[2]
        team.run(clone, settings)
        write(clone, "one picture of a {classname}.")
        pull = "--pull" if clone is clones[0] else ""
        team.run(clone, [mask, f"dvc repro {pull} zero_shot"])
    assert clones[0].executed() == ["prompts", "embed_active", "zero_shot"]
    assert clones[1].executed() == []
    assert outputs(clones[1]) == outputs(clones[0])
    made = [path.stat().st_mode & 0o777 for path in (team.srv / "clipcifar").rglob("*") if path.is_file()]
    assert set(made) == {0o664}
