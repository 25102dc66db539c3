"""A developer's day with ``cloudlet dev``: real processes, real files, the real edge."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.installation import cloudlet
from tests.acceptance.player import Answer, Player
from tests.integration.dev_support import USES_DOCUMENTS, Dev
from tests.integration.up_support import answering, command, one_line, until, write_project

pytestmark = pytest.mark.xdist_group("dev")

THROWS = "exports.main = async () => { console.log('about to'); throw new Error('too late') }\n"
IDLE_AT_ONCE = {"config.json": '{"cloudlet": {"keepAlive": 0}}'}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dev")


@pytest.fixture(scope="module")
def dev(folder: Path) -> Iterator[Dev]:
    """One run for the tests below, which each look at a function of their own."""
    functions = {
        "saved": answering("one"),
        "broken": answering("one"),
        "throws": THROWS,
        "gone": answering(1),
        "cold": answering(1),
        "caller": answering(1),
    }
    project = write_project(folder / "project", functions, {"cold": IDLE_AT_ONCE})
    notes = project / "cloudfunctions/notes"
    notes.mkdir()
    (notes / "index.py").write_text(USES_DOCUMENTS)
    with Dev(project, folder / "data") as dev:
        dev.event("watching")
        yield dev


def write(dev: Dev, function: str, text: str, file: str = "index.js") -> None:
    """Save a file as editors do: beside it first."""
    path = dev.project / "cloudfunctions" / function / file
    path.parent.mkdir(exist_ok=True)
    beside = path.with_name(f".{file}.swp")
    beside.write_text(text)
    beside.replace(path)


def call(dev: Dev, function: str, data: object | None = None) -> Answer:
    return dev.platform.call(function, data or {})


def deployed(dev: Dev, function: str, status: str = "deployed") -> dict[str, Any]:
    return dev.event("deploy", kind="function", function=function, status=status)


def test_a_saved_file_is_live_and_nothing_else_is_deployed(dev: Dev) -> None:
    assert call(dev, "saved").body == "one"
    dev.forget()
    write(dev, "saved", answering("two"))
    assert deployed(dev, "saved")["number"] == 2
    assert call(dev, "saved").body == "two"
    assert {event["function"] for event in dev.events if event["event"] == "deploy"} == {"saved"}


def test_a_broken_save_shows_the_error_and_the_old_version_serves_on(dev: Dev) -> None:
    dev.forget()
    write(dev, "broken", "this is no JavaScript")
    failed = deployed(dev, "broken", "failed")
    assert "SyntaxError" in failed["message"] and failed["serving"]
    assert dev.event("log", text="SyntaxError: Unexpected identifier 'is'")["level"] == "error"
    assert call(dev, "broken").body == "one"
    write(dev, "broken", answering("mended"))
    deployed(dev, "broken")
    assert call(dev, "broken").body == "mended"


def test_a_broken_setting_is_shown_and_mended_too(dev: Dev) -> None:
    dev.forget()
    write(dev, "saved", '{"timeout": "soon"}', "config.json")
    assert "timeout" in dev.event("function_broken")["text"]
    assert call(dev, "saved").body in {"one", "two"}
    dev.forget()
    write(dev, "saved", '{"timeout": 7}', "config.json")
    deployed(dev, "saved")
    assert dev.installation.json("fn", "detail", "saved")["timeout_s"] == 7


def test_a_project_file_that_cannot_be_read_changes_nothing(dev: Dev) -> None:
    file = dev.project / "project.config.json"
    good = file.read_text()
    dev.forget()
    file.write_text("{")
    assert "project.config.json" in dev.event("error")["text"]
    assert call(dev, "caller").status == 200
    file.write_text(good)
    write(dev, "caller", answering(2))
    deployed(dev, "caller")


def test_a_new_folder_is_a_new_function_and_a_removed_one_serves_on(dev: Dev) -> None:
    dev.forget()
    write(dev, "fresh", answering("fresh"))
    assert deployed(dev, "fresh")["number"] == 1
    assert call(dev, "fresh").body == "fresh"
    path = dev.project / "cloudfunctions/gone/index.js"
    path.unlink()
    path.parent.rmdir()
    assert dev.event("function_gone")["function"] == "gone"
    assert call(dev, "gone").body == 1


def test_a_thrown_error_is_told_with_its_stack_and_what_the_client_saw(dev: Dev) -> None:
    dev.forget()
    answer = call(dev, "throws")
    seen = dev.event("edge_call", request_id=answer.request_id)
    assert (seen["function"], seen["status"], seen["openid"]) == ("throws", answer.status, "user-a")
    assert seen["client_saw"] == answer.body["code"] == "FUNCTIONS_EXECUTE_FAIL"
    about = [event for event in dev.events if event.get("request_id") == answer.request_id]
    lines = [event["text"] for event in about if event["event"] == "log"]
    assert lines[:2] == ["about to", "Error: too late"] and "index.js" in lines[2]


def test_the_answers_of_the_edge_are_told_in_the_clients_words(dev: Dev) -> None:
    dev.forget()
    with Player(dev.installation.url) as nobody:
        answer = nobody.call("saved", {})
    seen = dev.event("edge_call", request_id=answer.request_id)
    assert (seen["status"], seen["client_saw"]) == (401, answer.body["code"])


def test_a_cold_start_has_a_receipt(dev: Dev) -> None:
    until(lambda: not dev.installation.instances("cold"), "the instance of the start check has ended")
    dev.forget()
    answer = call(dev, "cold")
    assert {"sandbox", "load"} <= answer.stages.keys()
    timing = dev.event("edge_call", request_id=answer.request_id)["timing"]
    assert "sandbox;dur=" in timing and "load;dur=" in timing


def test_calls_of_the_command_line_are_told_too(dev: Dev) -> None:
    dev.forget()
    assert dev.installation.invoke("caller", {}) in {1, 2}
    told = dev.event("call", function="caller")
    assert (told["nested"], told["error"], told["process"]) == (False, "", "api")


def test_collections_are_made_at_their_first_use_and_empty_lists_say_why(dev: Dev) -> None:
    dev.forget()
    assert call(dev, "notes").body["data"] == {"list": []}
    assert dev.event("collection_created")["preset"] == "PRIVATE"
    assert dev.event("list_empty", collection="notes")["why"] == "the collection has no documents"
    assert len(call(dev, "notes", {"add": 1}).body["data"]["insertedIds"]) == 1
    dev.forget()
    assert call(dev, "notes", {"query": {"n": 2}}).body["data"] == {"list": []}
    assert dev.event("list_empty")["why"] == "the query matches none of 1 document"
    assert not [event for event in dev.events if event["event"] == "collection_created"]


def test_a_second_one_for_the_same_data_is_refused_in_one_line(dev: Dev) -> None:
    one_line(command(dev.installation.data, "dev", str(dev.project), "--port", "0"), 5, "another cloudlet")
    assert call(dev, "caller").status == 200


def test_ctrl_c_ends_everything_and_the_data_is_there_next_time(tmp_path: Path) -> None:
    project = write_project(tmp_path / "project", {"hello": answering("hello")})
    (project / "cloudfunctions/notes").mkdir()
    (project / "cloudfunctions/notes/index.py").write_text(USES_DOCUMENTS)
    with Dev(project, tmp_path / "data") as dev:
        deployed(dev, "notes")
        call(dev, "notes", {"add": 1})
        assert dev.interrupt() == 0
        assert dev.events[-1]["event"] == "stopped"
    with Dev(project, tmp_path / "data") as dev:
        deployed(dev, "hello", "unchanged")
        deployed(dev, "notes", "unchanged")
        assert len(call(dev, "notes").body["data"]["list"]) == 1
        # Killed, nothing may stay either.
        dev.kill()


def test_what_is_said_to_a_person(tmp_path: Path) -> None:
    project = write_project(tmp_path / "project", {"broken": "nonsense here"})
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDLET_")}
    with subprocess.Popen(
        [cloudlet(), "dev", project, "--port", "0"],
        env=kept | {"CLOUDLET_DATA": str(tmp_path / "data")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            text = ""
            while "watching" not in text and (line := process.stdout.readline()):
                text += line
            process.terminate()
            text += process.stdout.read()
            assert process.wait(60) == 0, text
        finally:
            process.kill()
    for words in ("URL        http://127.0.0.1:", "Network", "do not verify", "不校验合法域名", "▄▄▄▄▄"):
        assert words in text
    assert "✗ broken: the function cannot be loaded: SyntaxError" in text
    assert "it was never deployed" in text
    assert text.splitlines()[-1] == "stopped"
    assert "\x1b" not in text


def test_a_project_that_is_none_and_an_environment_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    one_line(command(tmp_path / "data", "dev", str(tmp_path / "empty")), 5, "no functions found")
    project = write_project(tmp_path / "project", {"hello": answering(1)})
    done = command(tmp_path / "data", "dev", str(project), "--env", "nowhere", "--port", "0", "--no-qr")
    one_line(done, 4, "'nowhere'", "cloudlet env create nowhere")
