"""Searches: trials drawn by Optuna, resumable."""

from __future__ import annotations

import math
import re
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import yaml
from jaguar_kit import (
    NUMBER,
    Busy,
    Experiment,
    Images,
    KitError,
    Recipe,
    RunFolder,
    RunSpec,
    TrainingFailed,
    check_model,
    convert,
    damaged,
    echo,
    execute_run,
    expand,
    fingerprint,
    merge_recipe,
    nested,
    only_one,
    precision_of,
    read_record,
    recipe_from_dict,
    recipe_to_dict,
    remove_path,
    settings_that_count,
    without_passwords,
    write_json,
    write_text,
)

from .runs import images_for
from .smoke import check_buildable

# search


def whole_range(rule: Mapping[str, Any]) -> bool:
    return all(type(rule[bound]) is int for bound in ("low", "high")) and rule.get("whole", True)


def check_space(recipe: Recipe, where: str) -> None:
    """Refuses a space or a baseline that names what is no setting, or values that a setting can't take."""
    with_settings(recipe, recipe.search.baseline, f"{where}search.baseline")
    if not recipe.search.space:
        raise KitError(f"{where}search.space: is empty (expected dotted settings, each with low and high, or choices)")
    for title in ("space", "matched"):
        for name, rule in getattr(recipe.search, title).items():
            place = f"{where}search.{title}.{name}"
            for value in bounds_of(rule, place):
                with_settings(recipe, {name: value}, place)


def bounds_of(rule: Any, place: str) -> list[Any]:
    """The choices of a setting that is searched, or its two bounds."""
    example = "expected {low: 1e-5, high: 1e-3, log: true} or {choices: [16, 32]}"
    known = {"low", "high", "log", "whole"}
    if (
        isinstance(rule, Mapping)
        and rule.keys() == {"choices"}
        and isinstance(rule["choices"], list)
        and rule["choices"]
    ):
        if any(isinstance(choice, (list, dict)) for choice in rule["choices"]):
            raise KitError(f"{place}.choices: {rule['choices']!r} holds more than numbers and texts ({example})")
        return rule["choices"]
    if not isinstance(rule, Mapping) or not {"low", "high"} <= rule.keys() <= known:
        raise KitError(f"{place}: {rule!r} is no range ({example})")
    for flag in ("log", "whole"):
        convert(rule.get(flag, False), bool, f"{place}.{flag}")
    low, high = (convert(rule[bound], float, f"{place}.{bound}") for bound in ("low", "high"))
    if low > high or (rule.get("log") and low <= 0):
        raise KitError(f"{place}: {rule!r} is no range: low is above high, or log has a bound of 0 or less ({example})")
    return [rule["low"], rule["high"]] if whole_range(rule) else [low, high]


def with_settings(recipe: Recipe, drawn: Mapping[str, Any], where: str) -> Recipe:
    """The recipe with dotted settings, as a single run."""
    raw = {**recipe_to_dict(recipe), "search": None, "analysis": [], "variants": {}, "grid": {}, "seeds": []}
    raw["overrides"] = [text for text in recipe.overrides if not re.match(r"\s*search\b", text)]  # a run has no search
    for name, value in drawn.items():
        raw = merge_recipe(raw, nested(name, value))
    return expand(recipe_from_dict(raw, where))[0].recipe


def distribution_of(rule: Mapping[str, Any]) -> Any:
    """Optuna's distribution of a setting that is searched; whole numbers where both bounds are."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "choices" in rule:
        return CategoricalDistribution(rule["choices"])
    if whole_range(rule):
        return IntDistribution(rule["low"], rule["high"], log=rule.get("log", False))
    return FloatDistribution(float(rule["low"]), float(rule["high"]), log=rule.get("log", False))


SEARCHES = {  # what their best trial is called, and what it is
    "space": ("best", "best trial"),
    "matched": ("matched", "best trial of the baseline's own parts"),
    "random": ("random", "best trial of as many that were drawn at random"),
}


def run_search(experiment: Experiment, searching: bool = True) -> list[RunSpec]:
    """Runs the trials that are missing; the runs to report: the recipe's own settings and the best of each space.

    Trials lie in folder/trials, where one process at a time is at work, or in the study at search.storage, which
    several machines may share. A trial whose mAP falls behind the median of the others at an epoch is ended there.
    The last sixth of the time is left for the runs that are reported.
    """
    recipe, folder, data, device = experiment.recipe, experiment.folder, experiment.data, experiment.device
    deadline, now = experiment.deadline, time.monotonic()
    if math.isfinite(deadline):
        deadline -= 0.15 * (deadline - now)
    deadline = deadline if searching else -math.inf
    specs, images_of = [search_baseline(recipe)], partial(images_for, data=data, folder=folder)
    with nullcontext() if recipe.search.storage else only_one(folder / "trials"):
        for left in [folder / "trials", *folder.glob("search-*.log")] if experiment.force else []:
            if left.exists():
                RunFolder(left).set_aside()
        for title, (label, why) in SEARCHES.items():
            space = free_space(recipe, title)
            if space:
                best = search_space(Trials(recipe, title, space, folder), images_of, device, deadline)
                once = with_settings(recipe, best, recipe.name)
                specs.append(RunSpec(label, f"{why}: {settings_words(best)}", once, derived=True))
                told = without_passwords(recipe_to_dict(replace(once, name=f"{recipe.name}-{label}")))
                write_text(folder / f"{label}.yaml", yaml.safe_dump(told, sort_keys=False, allow_unicode=True))
    return specs


def settings_words(settings: Mapping[str, Any]) -> str:
    """Settings in a line: loss arcface (margin 0.5, scale 64), train.lr 0.0001."""
    return ", ".join(f"{name} {setting_text(value)}" for name, value in settings.items())


def setting_text(value: Any) -> str:
    """A setting's value with as many digits as tell it."""
    if isinstance(value, Mapping):
        own = [f"{name} {setting_text(one)}" for name, one in value.items() if name != "name"]
        return f"{value.get('name', '')} ({', '.join(own)})".strip() if own else str(value.get("name", ""))
    whole = isinstance(value, float) and value % 1 == 0
    return f"{value:.0f}" if whole else f"{value:.3g}" if isinstance(value, float) else str(value)


def search_baseline(recipe: Recipe) -> RunSpec:
    own = recipe.search.baseline
    once = with_settings(recipe, own, f"{recipe.name}: search.baseline")
    return RunSpec("baseline", f"the baseline: {settings_words(own)}" if own else "the recipe's own settings", once)


def free_space(recipe: Recipe, title: str) -> dict[str, Any]:
    """What of a space is to be searched; what the command line sets is set."""
    fixed = {text.partition("=")[0].strip() for text in recipe.overrides}
    search = recipe.search
    space = (search.space if search.random else {}) if title == "random" else getattr(search, title)
    return {name: rule for name, rule in space.items() if name not in fixed}


JOURNALS = (".journal", ".log")


def journal(path: str) -> Any:
    """Optuna's storage in a file that several sessions append to."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(path))


MEND_SEARCH = "set the search aside with --force"


@dataclass(frozen=True, eq=False)
class Trials:
    """The trials of a search that have ended.

    Each leaves a file when it ends, and none before. What is drawn for the next depends on its number and on those that
    ended before alone, so that a search that was killed goes on as if it had not been. With search.storage the trials
    are those of all sessions that share it, and the folder of results: a session alone draws what a search without it
    would, and what a dead one was at is taken up.
    """

    recipe: Recipe
    title: str
    space: Mapping[str, Any]
    folder: Path

    @cached_property
    def key(self) -> str:
        """Changes with all that makes trials of one search incomparable with another's."""
        return fingerprint(settings_that_count(with_settings(self.recipe, {}, self.recipe.name)), self.space)

    @cached_property
    def distributions(self) -> dict[str, Any]:
        return {name: distribution_of(rule) for name, rule in self.space.items()}

    @cached_property
    def shared(self) -> Any:
        """The study at search.storage; None where there is none. KitError where it can't be opened."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)  # also of studies that are not shared
        url = self.recipe.search.storage
        if not url:
            return None
        if ":memory:" in url or url.rstrip("/") == "sqlite:":
            raise KitError(
                "search.storage: a database in memory is gone with its process (expected a file or a server)"
            )
        name = f"{self.recipe.name}-{self.title}-{self.key}"
        try:
            storage = journal(url) if url.endswith(JOURNALS) and "://" not in url else url
            return optuna.create_study(storage=storage, study_name=name, load_if_exists=True, direction="maximize")
        except Exception as error:  # noqa: BLE001 - drivers of databases raise many kinds
            kind = url.partition(":")[0] if "://" in url else "it"
            raise KitError(
                f"search.storage: {kind} can't be opened ({type(error).__name__}; expected a file on a folder that all "
                "sessions share, such as trials.journal, or an address as SQLAlchemy takes it, such as "
                "sqlite:///trials.db, whose driver is installed and whose server answers)"
            ) from None

    def place(self, number: int) -> Path:
        return self.folder / "trials" / f"{self.title}{number}"

    def ended(self) -> list[dict[str, Any]]:
        """What the files tell of the trials, in order, up to the first that has not ended."""
        told: list[dict[str, Any]] = []
        if (self.folder / f"search-{self.title}.log").exists():
            raise KitError(f"{self.folder}: holds a search of an earlier version; {MEND_SEARCH}")
        while (path := self.place(len(told)) / "trial.json").is_file():
            record = read_record(path, {"key": str, "settings": dict, "state": str, "epochs": dict}, MEND_SEARCH)
            odd = [value for value in record["epochs"].values() if not isinstance(value, NUMBER)]
            if odd or record["state"] not in ("COMPLETE", "PRUNED", "FAIL"):
                raise damaged(path, f"state {record['state']!r}" if not odd else f"epochs: {odd[0]!r}", MEND_SEARCH)
            if record["key"] != self.key:
                raise KitError(
                    f"{self.folder}: holds a search with other settings; choose another --out, or {MEND_SEARCH}"
                )
            told.append(record)
        return told

    def study(self) -> Any:
        """An Optuna study of the ended trials, about to draw the next."""
        import optuna

        pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3)
        if self.shared is not None:
            self.shared.pruner = pruner
            return self.shared
        ended = self.ended()
        study = optuna.create_study(direction="maximize", sampler=self.sampler(len(ended)), pruner=pruner)
        for number, told in enumerate(ended):
            study.add_trial(self.as_trial(told, self.place(number) / "trial.json"))
        return study

    def sampler(self, number: int) -> Any:
        """What draws the trial of that number."""
        import optuna

        kind = optuna.samplers.RandomSampler if self.title == "random" else optuna.samplers.TPESampler
        return kind(seed=int(fingerprint(self.recipe.search.seed, self.title, number), 16) % 2**32)

    def next(self, stack: ExitStack) -> Any:
        """The trial to make now, which is this session's alone until the stack is closed; None where there is none.

        Of a shared search that is one whose session has died, else a new one, while there are fewer than asked for.
        Sessions in folders of their own can't tell whether another's has died: theirs are counted when they have ended.
        """
        wanted = self.recipe.search.trials
        if self.shared is None:
            return self.study().ask(self.distributions) if self.count() < wanted else None
        from optuna.trial import Trial, TrialState

        study = self.study()
        with only_one(self.folder / "trials" / f"{self.title}-draw", wait=True):
            known = study.get_trials(deepcopy=False)
            begun = [t for t in known if t.state == TrialState.RUNNING and t.user_attrs.get("folder") == self.here]
            for one in begun:
                with suppress(Busy):
                    stack.enter_context(only_one(self.place(one.number)))
                    echo(f"  {self.title} trial {one.number}: its session has ended, taken up")
                    return self.drawn(study, Trial(study, one._trial_id))
            if len(begun) + sum(t.state.is_finished() for t in known) >= wanted:
                return None
            trial = study.ask()
            trial.set_user_attr("folder", self.here)
            stack.enter_context(only_one(self.place(trial.number)))
            return self.drawn(study, trial)

    @cached_property
    def here(self) -> str:
        """What tells this folder of results from those of sessions elsewhere, whatever its path is for each."""
        path = self.folder / "trials" / ".folder"
        if not path.is_file():
            write_text(path, uuid.uuid4().hex)
        return path.read_text(encoding="utf-8")

    def drawn(self, study: Any, trial: Any) -> Any:
        """The trial with all its settings: those that it has, and the others as its number has them."""
        study.sampler = self.sampler(trial.number)
        for name, rule in self.distributions.items():
            own = rule._asdict()
            if "choices" in own:
                trial.suggest_categorical(name, own["choices"])
            else:
                suggest = trial.suggest_int if isinstance(own["low"], int) else trial.suggest_float
                suggest(name, own["low"], own["high"], log=own["log"])
        return trial

    def as_trial(self, told: Mapping[str, Any], path: Path) -> Any:
        import optuna

        try:
            return optuna.trial.create_trial(
                state=optuna.trial.TrialState[told["state"]],
                value=told.get("value"),
                params=told["settings"],
                distributions=self.distributions,
                intermediate_values={int(epoch): value for epoch, value in told["epochs"].items()},
            )
        except (KeyError, ValueError, TypeError) as error:
            raise damaged(path, error, MEND_SEARCH) from None

    def count(self) -> int:
        """How many trials have ended, in any way."""
        if self.shared is None:
            return len(self.ended())
        return sum(trial.state.is_finished() for trial in self.shared.get_trials(deepcopy=False))

    def end(self, trial: Any, state: Any, value: float | None) -> None:
        """Writes what became of a trial."""
        own = trial.study.get_trials(deepcopy=False)[trial.number]
        epochs = {str(epoch): reported for epoch, reported in own.intermediate_values.items()}
        told = {"key": self.key, "settings": trial.params, "state": state.name, "value": value, "epochs": epochs}
        if self.shared is not None:
            self.shared.tell(trial.number, value, state)
        write_json(self.place(trial.number) / "trial.json", told)


def search_space(
    trials: Trials, images_of: Callable[[Recipe], Images], device: torch.device, deadline: float
) -> dict[str, Any]:
    """The best settings of a space, after as many ended trials as the recipe asks for, or at the deadline."""
    import optuna

    while time.monotonic() < deadline and trials.count() < trials.recipe.search.trials:
        with ExitStack() as stack:
            trial = trials.next(stack)
            if trial is None:  # other sessions are at the last ones
                time.sleep(1)
                continue
            ended = run_trial(trials, trial, images_of, device, deadline)
            if ended is None:  # not worth what the others are; the next session goes on with it
                break
            state, value, reason = ended
            trials.end(trial, state, value)
            echo(f"  {trials.title} trial {trial.number}: {reason}")
    study = trials.study()
    if not study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
        raise TrainingFailed(f"{trials.recipe.name}: no trial of search.{trials.title} came to an end")
    return dict(study.best_params)


def run_trial(
    trials: Trials, trial: Any, images_of: Callable[[Recipe], Images], device: torch.device, deadline: float
) -> tuple[Any, float | None, str] | None:
    """State, mAP and in words what became of a trial; None where time ran out. One that was killed is gone on with."""
    import optuna

    once = with_settings(trials.recipe, trial.params, f"{trials.recipe.name}: trial {trial.number}")
    place, images, states = trials.place(trial.number), images_of(once), optuna.trial.TrialState
    spec = RunSpec(trials.title, "", once)
    there = RunFolder(place)
    if place.exists() and there.changed(once, images.fingerprint):
        there.set_aside()

    def watch(row: Mapping[str, float]) -> None:
        trial.report(float(row["map"]), int(row["epoch"]))
        if trials.recipe.search.prune and trial.should_prune():
            raise optuna.TrialPruned

    try:
        for check in (check_model, check_buildable):
            check(once)
        precision_of(once.train.precision, device)
    except KitError as error:
        return states.FAIL, None, f"can't run: {error}"
    try:
        if there.done:  # and was killed before that was written down
            for row in there.log().to_dict("records")[1:]:
                trial.report(float(row["map"]), int(row["epoch"]))
        else:
            execute_run(spec, images, place, device, deadline, watch)
        told = there.metrics()
    except optuna.TrialPruned:
        remove_path(place / "checkpoint.safetensors")
        return states.PRUNED, None, "pruned"
    except TrainingFailed as error:
        return states.FAIL, None, f"failed: {error}"
    if "stopped" in told:
        return None
    if math.isnan(told["map"]):
        return states.FAIL, None, "failed: nothing was validated"
    return states.COMPLETE, told["map"], f"mAP {told['map']:.4f}"
