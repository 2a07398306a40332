# SPDX-License-Identifier: ZPL-2.1
"""The demo in this process: what its catalog holds, what it finds, and what its proof sees."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
from ZODB.FileStorage import FileStorage

from lovely.remotetask.command.demo import door as doors
from lovely.remotetask.command.demo import files, indexing, work
from lovely.remotetask.command.demo.catalog import Catalog, Document
from lovely.remotetask.command.demo.door import DOORS, Door
from lovely.remotetask.command.demo.proof import prove
from lovely.remotetask.errors import InvalidArgument, TaskError

NEVER = threading.Event()
TASKS, REMOTE = DOORS["tasks"], DOORS["remote"]


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "DELAY_SECONDS", 0.0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with three text files: six words, four different ones."""
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "one.txt").write_text("red green")
    (root / "two.py").write_text("red_red = 1")
    (root / "sub" / "three.md").write_text("Blue black\n")
    return root


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory of the demo's database, before the first run."""
    return tmp_path / "database"


def run(
    tree: Path,
    directory: Path,
    workers: int = 1,
    wait: Callable[[float], bool] = NEVER.wait,
    door: Door = TASKS,
) -> work.Result:
    found = files.find_files(tree, 1000, directory)
    with work.opened(directory, workers, door) as database:
        return database.work(database.plan(found), wait, lambda done, total: None)


def plan(tree: Path, directory: Path, door: Door = TASKS) -> work.Plan:
    with work.opened(directory, 1, door) as database:
        return database.plan(files.find_files(tree, 1000, directory))


@contextmanager
def root_of(directory: Path, door: Door = TASKS) -> Iterator[Any]:
    """Yield the root object of the demo's database, and commit what was changed."""
    database = ZODB.DB(FileStorage(str(directory / door.database_file)))
    manager = transaction.TransactionManager()
    try:
        with manager:
            yield database.open(manager).root()
    finally:
        database.close()


def problems(result: work.Result) -> list[int]:
    """Return how many problems each check has found."""
    return [len(check.problems) for check in result.checks]


# -- the catalog -----------------------------------------------------------------------------


def test_a_search_finds_the_documents_with_a_word() -> None:
    catalog = Catalog()
    catalog.index(1, "/one", "v1", {"red": 2, "green": 1})
    catalog.index(2, "/two", "v1", {"red": 5})
    assert catalog.search("red") == {1: 2, 2: 5}
    assert catalog.search("green") == {1: 1}
    assert catalog.search("blue") == {}


def test_a_file_that_is_indexed_again_takes_the_place_of_its_former_document() -> None:
    catalog = Catalog()
    assert catalog.index(1, "/one", "v1", {"red": 2, "green": 1}) is None
    assert catalog.index(2, "/one", "v2", {"red": 1}) == 1
    assert sorted(catalog.postings()) == [("red", 2, 1)]
    assert dict(catalog.documents) == {"/one": Document(2, "v2", 1)}


def test_documents_that_come_one_after_the_other_stand_in_different_segments() -> None:
    catalog = Catalog()
    for id in range(1000, 1000 + catalog.segments_in_turn):
        catalog.index(id, f"/{id}", "v1", {"red": 1})
    assert len(catalog.segments) == catalog.segments_in_turn


def test_no_segment_holds_more_documents_than_it_may() -> None:
    catalog = Catalog()
    for id in range(1000):
        catalog.index(id, f"/{id}", "v1", {"red": 1})
    assert max(len(segment.postings["red"]) for segment in catalog.segments.values()) == (
        catalog.segment_size
    )


# -- words and files -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"Red red_green", {"red": 2, "green": 1}),
        ("Stra\xdfe".encode(), {"stra\xdfe": 1}),
        ("Stra\xdfe".encode("latin-1"), {"stra\xdfe": 1}),
        (b"a 1 22", {}),
    ],
)
def test_words_are_runs_of_letters_in_lower_case(
    tmp_path: Path, data: bytes, words: dict[str, int]
) -> None:
    (tmp_path / "file").write_bytes(data)
    assert files.count_words(tmp_path / "file") == Counter(words)


def test_a_file_with_a_zero_byte_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"red\0")
    with pytest.raises(TaskError, match="zero byte at 3"):
        files.count_words(tmp_path / "file")


def names(found: list[files.File]) -> list[str]:
    return [Path(file["path"]).name for file in found]


def test_text_files_are_found_in_a_fixed_order(tree: Path, directory: Path) -> None:
    assert names(files.find_files(tree, 10, directory)) == ["one.txt", "two.py", "three.md"]


def test_no_more_files_are_found_than_the_limit(tree: Path, directory: Path) -> None:
    assert names(files.find_files(tree, 2, directory)) == ["one.txt", "two.py"]


@pytest.mark.parametrize(
    "passed_over", ["picture.png", ".git/config.txt", "__pycache__/x.py", "database/x.txt"]
)
def test_some_files_are_passed_over(tree: Path, passed_over: str) -> None:
    (tree / passed_over).parent.mkdir(exist_ok=True)
    (tree / passed_over).write_text("red")
    assert len(files.find_files(tree, 10, tree / "database")) == 3


def test_large_files_and_links_to_nowhere_are_passed_over(tree: Path, directory: Path) -> None:
    with (tree / "large.txt").open("wb") as large:
        large.truncate(files.MAX_FILE_BYTES + 1)
    (tree / "nowhere.txt").symlink_to(tree / "no such file")
    assert len(files.find_files(tree, 10, directory)) == 3


def test_a_single_file_is_found_whatever_its_name(tree: Path, directory: Path) -> None:
    (tree / "Makefile").write_text("all:")
    assert names(files.find_files(tree / "Makefile", 10, directory)) == ["Makefile"]


@pytest.mark.parametrize("path", ["no such directory", "empty"])
def test_it_is_an_error_if_there_is_nothing_to_find(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidArgument):
        files.find_files(tmp_path / path, 10, tmp_path)


# -- runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_a_run_indexes_all_files_and_proves_it(tree: Path, directory: Path, workers: int) -> None:
    result = run(tree, directory, workers)
    assert problems(result) == [0] * 5
    assert result.agrees
    assert (result.done, result.left, result.documents, result.words) == (4, 0, 3, 6)
    assert (result.jobs["completed"], result.jobs["cronjob"], result.jobs["error"]) == (4, 1, 1)
    assert next(iter(result.frequent_words.items())) == ("red", 3)
    assert list(result.errors) == [str(directory / work.UNREADABLE_FILE)]
    assert result.next_report is not None


def test_a_second_run_finds_nothing_to_do(tree: Path, directory: Path) -> None:
    run(tree, directory)
    again = plan(tree, directory)
    assert (again.todo, again.indexed, again.failed, again.waiting) == ([], 3, 1, 0)


def test_a_file_that_has_changed_is_indexed_anew(tree: Path, directory: Path) -> None:
    run(tree, directory)
    (tree / "one.txt").write_text("yellow yellow yellow")
    result = run(tree, directory)
    assert result.agrees
    assert (result.done, result.documents, result.words) == (1, 3, 7)
    with root_of(directory) as root:
        assert root["catalog"].search("green") == {}
        assert list(root["catalog"].search("yellow").values()) == [3]


def test_a_file_that_was_an_error_gets_a_new_job_when_it_has_changed(
    tree: Path, directory: Path
) -> None:
    (tree / "one.txt").write_bytes(b"\0")
    assert len(run(tree, directory).errors) == 2
    assert plan(tree, directory).failed == 2
    (tree / "one.txt").write_text("red green")
    assert len(plan(tree, directory).todo) == 1
    assert run(tree, directory).documents == 3


def test_a_run_that_is_interrupted_at_once_leaves_all_to_the_next_one(
    tree: Path, directory: Path
) -> None:
    result = run(tree, directory, wait=lambda seconds: True)
    assert result.agrees is None
    assert (result.done, result.left) == (0, 4)
    assert run(tree, directory).agrees


def test_jobs_that_wait_since_the_run_before_are_not_added_again(
    tree: Path, directory: Path
) -> None:
    with work.opened(directory, 1, TASKS):
        pass
    with root_of(directory) as root:
        for file in files.find_files(tree, 2, directory):
            root["tasks"].add(indexing.INDEX, file)
    left_over = plan(tree, directory)
    assert (len(left_over.todo), left_over.waiting) == (2, 2)
    result = run(tree, directory)
    assert (result.done, result.documents) == (4, 3)
    assert result.agrees


def test_the_number_of_workers_is_that_of_the_last_run(tree: Path, directory: Path) -> None:
    for workers, factory in [(2, "MultiProcessor"), (1, "SimpleProcessor")]:
        with work.opened(directory, workers, TASKS):
            pass
        with root_of(directory) as root:
            assert root["tasks"].processorFactory.__name__ == factory
            assert root["tasks"].processorArguments.get("maxThreads", 1) == workers


def test_the_cron_job_keeps_its_last_reports(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "MAX_REPORTS", 2)
    with work.opened(directory, 1, TASKS):
        pass
    with root_of(directory) as root:
        jobid = root["tasks"].addCronJob(indexing.REPORT)
        due = root["tasks"].jobs[jobid].due
        for minute in range(4):
            root["tasks"].process(due + 60 * minute)
        assert [report["documents"] for report in root["catalog"].reports.values()] == [0, 0]


# -- the second door -------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_job_objects_index_all_files_and_one_that_comes_late(
    tree: Path, directory: Path, workers: int
) -> None:
    result = run(tree, directory, workers, door=REMOTE)
    late = str(directory / work.LATE_FILE)
    assert problems(result) == [0] * 6
    assert result.agrees
    assert (result.done, result.left, result.documents, result.words) == (5, 0, 4, 10)
    assert set(result.jobs) == {"queued", "processing", "cancelled", "error", "completed"}
    assert result.jobs["error"] == 1
    assert "is no text" in result.errors[str(directory / work.UNREADABLE_FILE)]
    assert "No such file" in result.repeated.pop(late)[0]
    assert result.repeated == {}
    assert result.frequent_words["red"] == 3
    assert result.next_report is not None


def test_a_second_run_by_job_objects_finds_nothing_to_do_and_finds_the_words_again(
    tree: Path, directory: Path
) -> None:
    run(tree, directory, door=REMOTE)
    again = plan(tree, directory, REMOTE)
    assert (again.todo, again.indexed, again.failed, again.waiting) == ([], 4, 1, 0)
    (tree / "one.txt").write_text("yellow yellow yellow yellow")
    result = run(tree, directory, door=REMOTE)
    assert result.agrees
    assert (result.done, result.frequent_words["yellow"]) == (1, 4)


def test_a_run_by_job_objects_that_is_interrupted_leaves_all_to_the_next_one(
    tree: Path, directory: Path
) -> None:
    interrupted = run(tree, directory, wait=lambda seconds: True, door=REMOTE)
    assert (interrupted.agrees, interrupted.left) == (None, 5)
    assert run(tree, directory, door=REMOTE).agrees


def test_both_doors_have_databases_of_their_own_in_one_directory(
    tree: Path, directory: Path
) -> None:
    assert run(tree, directory).agrees
    result = run(tree, directory, door=REMOTE)
    assert result.agrees
    assert result.done == 5


def test_a_report_without_its_job_is_noticed(tree: Path, directory: Path) -> None:
    run(tree, directory, door=REMOTE)
    with root_of(directory, REMOTE) as root:
        root["catalog"].reports[0.0] = {}
        checks = prove(REMOTE, root["processor"], root["catalog"])
        assert [len(check.problems) for check in checks] == [0, 0, 0, 0, 0, 1]


# -- the proof can fail ----------------------------------------------------------------------


def a_posting_is_wrong(root: Any) -> None:
    segment = next(iter(root["catalog"].segments.values()))
    ids = {id for counts in segment.postings.values() for id in counts}
    next(iter(segment.postings.values())).update(dict.fromkeys(ids, 99))
    segment._p_changed = True


def a_posting_is_of_no_document(root: Any) -> None:
    segment = next(iter(root["catalog"].segments.values()))
    segment.postings = {**segment.postings, "ghost": {2**31 - 2: 1}}


def a_document_is_gone(root: Any) -> None:
    del root["catalog"].documents[root["catalog"].documents.minKey()]


def a_document_has_another_word_count(root: Any) -> None:
    documents = root["catalog"].documents
    path = documents.minKey()
    documents[path] = documents[path]._replace(words=99)


def a_job_is_gone(root: Any) -> None:
    service = root["tasks"]
    job = next(
        job
        for job in service.jobs.values()
        if job.task == indexing.INDEX and job.status == "completed"
    )
    service.queue.remove(job)
    del service.jobs[job.id]


def the_count_of_a_status_is_wrong(root: Any) -> None:
    root["tasks"].queue.indexes["completed"].size.change(1)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (a_posting_is_wrong, [0, 0, 0, 1, 0]),
        (a_posting_is_of_no_document, [0, 0, 1, 0, 0]),
        (a_document_is_gone, [1, 0, 1, 0, 0]),
        (a_document_has_another_word_count, [1, 0, 0, 1, 0]),
        (a_job_is_gone, [0, 1, 0, 0, 0]),
        (the_count_of_a_status_is_wrong, [0, 0, 0, 0, 1]),
    ],
)
def test_the_proof_fails_if(
    tree: Path, directory: Path, damage: Callable[[Any], None], found: list[int]
) -> None:
    run(tree, directory)
    with root_of(directory) as root:
        damage(root)
        checks = prove(TASKS, root["tasks"], root["catalog"])
        assert [len(check.problems) for check in checks] == found
