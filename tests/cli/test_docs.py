"""README and docs are true: commands and programs run, links lead somewhere, flags exist.

To keep it short every number of steps in them is made smaller, as `shorter` says, and nothing else.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import glob
import itertools
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from clipper.agents import AGENTS
from clipper.cli.arguments import Parser
from clipper.cli.main import VERBS, module_of
from clipper.config import Config
from clipper.config_ppo import PPOConfig
from clipper.configs import CONFIGS
from clipper.experiments.study import read_study
from clipper.metrics import DESCRIPTIONS, RecentEpisodes
from clipper.presets import PRESETS, Preset, choose_preset, find_preset
from clipper.setting_values import show
from clipper.settings import describe_field
from commands import TINY, Clip

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MORE_PAGES = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
# LunarLander's preset has rollouts of 16,384 rows; a program that trains on it does it with these
SMALL = {"num_envs": 2, "num_steps": 64, "minibatch_size": 64, "num_epochs": 1}


class Block(NamedTuple):
    """A fenced block: where it is, its language and its text."""

    where: str
    language: str
    text: str


def blocks(pages: list[Path] = MORE_PAGES) -> Iterator[Block]:
    fence = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    for page in pages:
        text = page.read_text()
        assert text.count("```") % 2 == 0
        for found in fence.finditer(text):
            line = text[: found.start()].count("\n") + 1
            inner = re.sub(rf"^{found[1]}", "", found[3], flags=re.MULTILINE)
            yield Block(f"{page.relative_to(ROOT)}:{line}", found[2], inner)


def shorter(text: str) -> str:
    """Returns a text with its numbers of steps, 5,000 or more, divided by ten or more, to 3,000."""

    def small(found: re.Match[str]) -> str:
        number = int(found[2].replace("_", ""))
        return found[1] + str(min(number // 10, 3000) if number >= 5000 else number)

    return re.sub(r"(timesteps[ =]|train\()([\d_]+)", small, text)


def commands_of(block: Block) -> list[str]:
    """Returns the commands of a `console` or `sh` block, continued lines joined, `$ ` taken off."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        assert all(line.startswith("$ ") for line in lines), f"{block.where} has no `$ `"
        lines = [line[2:] for line in lines]
    return [line.split("  #")[0].strip() for line in lines]


CONSOLE = [block for block in blocks() if block.language == "console"]
SHELL = [
    (block.where, command)
    for block in blocks()
    if block.language in ("console", "sh")
    for command in commands_of(block)
    if command.startswith("clipper ")
]
TOML = [block for block in blocks() if block.language == "toml"]
PYTHON = [block for block in blocks() if block.language == "python"]


@pytest.mark.parametrize("block", CONSOLE, ids=lambda block: block.where)
def test_console_blocks_run(block: Block, clip: Clip) -> None:
    """Every command of a `console` block, one after the other in an empty folder, succeeds."""
    said = {}
    for command in commands_of(block):
        program, *words = shlex.split(shorter(command))
        assert program == "clipper"
        answer = clip(*(path for word in words for path in glob.glob(word) or [word]))
        assert answer.code == 0, f"{command}: {answer.err}"
        said[command] = answer
        if "--out" in words:
            assert Path(words[words.index("--out") + 1]).stat().st_size > 0
    hashes = re.findall("parameters_sha256: (.*)", "".join(a.out for a in said.values()))
    # seeds.md: the same seed gives the same parameters
    assert len(set(hashes)) <= 1


def test_the_blocks_were_found() -> None:
    """The searches above find what a reader sees: README's six commands and the seeds' check."""
    assert {block.where.split(":")[0] for block in CONSOLE} >= {
        "README.md",
        "docs/concepts/seeds.md",
    }
    readme = [
        line.split()[1]
        for block in CONSOLE
        if block.where.startswith("README.md")
        for line in commands_of(block)
    ]
    assert set(readme) == set(VERBS) - {"presets", "replay", "check-env", "reproduce"}
    assert len(SHELL) > 15
    assert len(PYTHON) >= 6


@pytest.mark.parametrize("block", TOML, ids=lambda block: block.where)
def test_toml_blocks_are_studies(block: Block, tmp_path: Path) -> None:
    """A study in the docs is read, and has as many runs as the command below it says."""
    file = tmp_path / "study.toml"
    file.write_text(block.text)
    page = (ROOT / block.where.split(":")[0]).read_text()
    stated = re.search(r"--dry-run +# (\d+) runs", page)
    assert stated
    assert len(read_study(file).runs()) == int(stated[1])


def parser_of(verb: str, words: Sequence[str] = ()) -> Parser:
    parser = Parser(words, prog=f"clipper {verb}")
    import_module(f"clipper.cli.{module_of(verb)}").add_arguments(parser)
    return parser


def settings_of(args: argparse.Namespace) -> dict[str, str]:
    names = [field.name for field in dataclasses.fields(CONFIGS[args.algo])]
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


@pytest.mark.parametrize(("where", "command"), SHELL, ids=[w + "-" + c[:30] for w, c in SHELL])
def test_shell_commands_are_understood(where: str, command: str) -> None:
    """A documented command is parsed without an error, and its settings agree with each other.

    Not run: some train for hours, some need MuJoCo.
    """
    verb, *words = shlex.split(command.replace("$seed", "0"))[1:]
    args = parser_of(verb, words).parse(words)
    if verb != "train":
        return
    if args.preset in (None, "none"):
        preset = choose_preset(args.preset, args.env, False, None, args.algo)
    else:
        preset = find_preset(args.preset)
    config = preset.config(**settings_of(args))
    stated = re.search(r"in full \((\d+) iterations\)", page_above(where))
    if stated:
        assert config.num_iterations == int(stated[1])
        assert config.total_timesteps == config.num_iterations * config.rollout_size


def page_above(where: str) -> str:
    """Returns the three lines above a block."""
    page, line = where.split(":")
    return "\n".join((ROOT / page).read_text().splitlines()[int(line) - 4 : int(line) - 1])


def inline(text: str) -> list[str]:
    """Returns the code spans of a page outside its fenced blocks."""
    plain = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", plain)


@pytest.mark.parametrize("page", MORE_PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_have_their_flags(page: Path) -> None:
    """A verb in a code span exists, and so does each of its flags."""
    for span in inline(page.read_text()):
        found = re.match(r"clipper ([a-z-]+)\b(?!\.)(.*)", span)
        if not found or "VERB" in span:
            continue
        verb = found[1]
        assert verb in VERBS, span
        flags = set(parser_of(verb, found[2].split())._option_string_actions)
        assert set(re.findall(r"(--[a-z][a-z-]*)", found[2])) <= flags, span


def test_flags_in_the_text_exist() -> None:
    """Every `--flag` that a page names as ours is a flag of some verb.

    coming-from.md and names.md name the flags of others too: there those in the columns headed
    `here`, `Clipper` or `to get its default` and in running text are ours, but for the few below.
    """
    ours = {
        flag
        for verb in VERBS
        for algorithm in CONFIGS
        for flag in parser_of(verb, ("--algo", algorithm))._option_string_actions
    }
    ours |= {"--help", "--version"}
    of_others = {
        "--n-steps",
        "--cpu",
        "--non-det",
        "--no-anneal-lr",
        "--clip-param",
        "--use-proper-time-limits",
        "--table",
    }
    used: set[str] = set()
    wrong = []
    for page in PAGES:
        columns: list[bool] = []
        for line in page.read_text().splitlines():
            if line.startswith("|"):
                cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
                columns = columns or [
                    cell in ("here", "Clipper", "to get its default", "do", "setting")
                    for cell in cells
                ]
                if any(columns):
                    line = " ".join(c for c, mine in zip(cells, columns, strict=True) if mine)
                elif page.name in ("coming-from.md", "names.md"):
                    line = ""
            else:
                columns = []
            if re.match(r"\s*(python |pip |--)", line):
                continue  # a command of another program; ours are parsed above
            found = set(re.findall(r"(?<![\w-])--[a-z][a-z_-]*[a-z]", line)) - ours
            used |= found
            found -= of_others
            wrong += [f"{page.name}: {flag} in {line[:70]}" for flag in found]
    assert wrong == []
    assert used == of_others


def anchors(page: Path) -> set[str]:
    """Returns the anchors GitHub makes of a page's headings."""
    plain = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ (.*)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", MORE_PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of the project, and its anchor a heading there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.where)
def test_python_blocks_compile(block: Block) -> None:
    """Every `python` block is Python."""
    compile(block.text, block.where, "exec")


@pytest.mark.parametrize(
    "block",
    [b for b in PYTHON if re.search(r"^import clipper", b.text, re.M) and "network" not in b.text],
    ids=lambda block: block.where,
)
def test_python_blocks_run(block: Block, clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole program runs as it stands; `obs` is the reader's own observation.

    Fewer steps and episodes, and LunarLander in small rollouts. Programs that need another
    library's files are compiled only.
    """
    for name in ("LunarLander-v3", "CartPole-v1"):
        small = {**PRESETS[name].settings, **SMALL}
        monkeypatch.setitem(PRESETS, name, Preset(name, small, "small for tests"))
    text = re.sub(r"episodes=\d+", "episodes=2", shorter(block.text))
    text = re.sub(r"timesteps=\d+", "timesteps=256", text)
    namespace = {"obs": np.zeros(8, np.float32), "__name__": "__main__"}
    exec(compile(text, block.where, "exec"), namespace)
    for name in re.findall(r'(?:save|record)\("([^"]+)"\)', text):
        assert Path(name).stat().st_size > 0


def test_the_readme_environment_trains(clip: Clip) -> None:
    """README's own environment, saved under its name, is trained by the command that follows it."""
    (block,) = [b for b in PYTHON if "class Chase" in b.text]
    (command,) = [c for where, c in SHELL if "chase:Chase" in c and where.startswith("README")]
    Path("chase.py").write_text(block.text)
    said = clip(*shlex.split(command)[1:], *TINY, "--quiet")
    assert said.code == 0, said.err
    assert len(block.text.strip().splitlines()) <= 25  # "20 lines", but for imports and blanks
    sys.modules.pop("chase")


def test_every_setting_is_documented() -> None:
    """The reference lists every setting with its flag, default, range and unit as they are now."""
    text = (ROOT / "docs/reference/command-line.md").read_text()
    names = (ROOT / "docs/reference/names.md").read_text()
    for field in dataclasses.fields(PPOConfig):
        flag = "--" + field.name.replace("_", "-")
        found = re.search(rf"^\| `{flag}` \| (.*?) \| (.*?) \|", text, re.MULTILINE)
        assert found, f"{flag} is not in docs/reference/command-line.md"
        assert found[1] == f"`{show(field.default)}`", flag
        assert found[2] == describe_field(field), flag
        assert f"`{field.name}`" in names


def test_the_page_of_ppo_names_all_there_is(trained: Path) -> None:
    """docs/algorithms/ppo.md has every setting of PPO and every number that a run of it logs."""
    page = (ROOT / "docs/algorithms/ppo.md").read_text()
    with open(trained / "metrics.csv", newline="") as file:
        columns = next(csv.reader(file))
    names = [field.name for field in dataclasses.fields(PPOConfig)]
    metrics = [column for column in columns if "/" in column]
    assert len(metrics) > 15
    assert [name for name in [*names, *metrics] if f"`{name}`" not in page] == []


# settings of every algorithm, which the pages of the single ones do not repeat
COMMON = {field.name for field in dataclasses.fields(Config)} - {"num_envs"}
COMMON |= {"value_hidden_sizes", "shared_torso", "log_std_init", "value_gain"}
LEARNERS = ("a2c", "acer", "vpg", "trpo", "cem")
# what a short run of each needs to report all it can
SHORT: dict[str, dict[str, Any]] = {
    "a2c": {"num_steps": 40, "rollouts_per_iteration": 2, "trust_region": True},
    "acer": {"num_steps": 40, "replay_start": 0, "trust_region": True},
    "vpg": {"num_steps": 40, "advantage": "total_return"},
    "trpo": {"num_steps": 40, "advantage": "total_return"},
    "cem": {"population_size": 4},
}


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_an_algorithms_page_lists_its_settings(algorithm: str) -> None:
    """Every setting of its own, with the default as it is now, and no other one."""
    text = (ROOT / f"docs/algorithms/{algorithm}.md").read_text()
    section = text[text.index("\n## Settings") : text.index("\n## Metrics")]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE)
    fields = dataclasses.fields(CONFIGS[algorithm])
    expected = {field.name: show(field.default) for field in fields if field.name not in COMMON}
    assert dict(rows) == expected
    assert len(rows) == len(expected)


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_an_algorithms_page_lists_its_metrics(algorithm: str) -> None:
    """Every number that an iteration reports beside those of every run, and no other one."""
    text = (ROOT / f"docs/algorithms/{algorithm}.md").read_text()
    section = text[text.index("\n## Metrics") : text.index("\n## Results")]
    listed = set()
    for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE):
        listed |= set(re.findall(r"`([a-z]+/\w+)`", row))
    reported: set[str] = set()
    agent_type = AGENTS[algorithm]
    for env in ("CartPole-v1", "Pendulum-v1") if algorithm != "acer" else ("CartPole-v1",):
        agent = agent_type(
            env,
            preset="none",
            num_envs=2,
            max_episode_steps=20,
            eval_every=0,
            **SHORT[algorithm],
            **({} if algorithm == "cem" else {"normalize_reward": True}),
        )
        agent.train(640, progress=False, callback=lambda report: reported.update(report.metrics))
    every_run = {name for name in reported if name.startswith("time/")}
    every_run |= set(RecentEpisodes().metrics()) | {
        "rollout/episode_return",
        "rollout/episode_return_std",
        "rollout/episode_length",
    }
    assert reported - every_run == listed
    assert listed <= set(DESCRIPTIONS)


def test_the_page_of_table_1_has_the_numbers_of_the_study() -> None:
    """Each row as `clipper reproduce` wrote it beside the runs: nobody keeps it up by hand."""
    text = (ROOT / "docs/tutorials/reproduce-the-paper.md").read_text()
    with open(ROOT / "benchmarks/returns/table1/table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    for row in rows:
        score, low, high = (f"{float(row[k]):.2f}" for k in ("score", "score_low", "score_high"))
        printed = f"{float(row['printed']):.2f}" if row["printed"] else ""
        cells = [row["setting"], score, f"{low} to {high}", printed]
        if row["printed"]:
            cells += [row["rank"], row["printed_rank"]]
            assert "| " + " | ".join(cells) + " |" in text
        else:
            assert "| " + " | ".join(cells[:3]) + " | |" in text


def test_the_page_of_figure_3_has_the_numbers_of_the_study() -> None:
    """A row of the page for each task, a column for each algorithm, with what others have read."""
    text = (ROOT / "docs/tutorials/reproduce-the-paper.md").read_text()
    with open(ROOT / "benchmarks/returns/figure3/table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7 * 6
    for env, group in itertools.groupby(rows, lambda row: row["env"]):
        cells = [env]
        for row in group:
            score, read = float(row["score"]), [float(n) for n in row["read"].split(";") if n]
            cells.append(f"{score:,.0f}" if abs(score) >= 100 else f"{score:.1f}")
            if read:
                cells[-1] += f" ({', '.join(f'{n:,.0f}' for n in read)})"
        assert f"| {' | '.join(cells)} |" in text
