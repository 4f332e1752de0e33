"""A call that compiles for long prints a note, once, on a terminal. All notes are logged too.

Compiles nothing in this process. A child process with a terminal compiles a search of one state.
"""

import logging
import os
import pty
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from helpers import ROOT

import ssntk
from ssntk import silence
from ssntk.sweep import progress

# Pretend that each compilation took two seconds. After two of them there must be a note.
CHILD = """
import json, sys, jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
import ssntk
from ssntk import silence
listener, seconds = silence.LISTENER, []

class Slow(type(listener)):
    def __call__(self, event, duration_secs, **rest):
        super().__call__(event, 2.0, **rest)

listener.__class__ = Slow
jax.jit(lambda x: x + 1)(jnp.ones(3)), jax.jit(lambda x: x * 2)(jnp.ones(3))
print("not yet", file=sys.stderr)
ssntk.find_fixed_points(ssntk.normal_forms.saddle_node(1.0), starts=[[0.5]])
ssntk.find_fixed_points(ssntk.normal_forms.pitchfork(1.0), starts=[[0.5]])
"""


def child(terminal):
    """The standard error of a process, which is a terminal or not."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if not terminal:
        done = subprocess.run([sys.executable, "-c", CHILD], stderr=subprocess.PIPE, env=environment, check=True, text=True)
        return done.stderr
    parent, end = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", CHILD], stderr=end, env=environment) as process:
        os.close(end)
        text = b""
        while True:
            try:
                piece = os.read(parent, 4096)
            except OSError:
                break
            if not piece:
                break
            text += piece
    os.close(parent)
    assert process.returncode == 0, text
    return text.decode()


def test_a_terminal_is_told_once_and_a_pipe_never():
    lines = child(terminal=True).splitlines()
    assert lines[0] == "not yet"
    (said,) = [line for line in lines if "compiling" in line]
    assert said == "ssntk: compiling find_fixed_points ... first calls take a while, 4 s so far; later ones reuse it"
    assert child(terminal=False) == "not yet\n"


@pytest.fixture
def listener(monkeypatch):
    """A listener that has printed no note yet, and the list of notes."""
    monkeypatch.setattr(silence, "is_terminal", lambda: True)
    return silence._Listener()


class Calling(ssntk.AbstractStateSpaceModel):
    """A model whose field reports compilations to a listener, as JAX does inside of a call."""

    tell: object
    n_state: int = 1
    n_input: int = 0
    n_output: int = 1

    def vector_field(self, t, x, u):
        self.tell()
        return -x


def test_what_a_users_own_program_compiles_is_not_spoken_of(listener, capsys, caplog):
    listener(silence.COMPILED, 100.0)
    assert not listener.said
    with caplog.at_level(logging.INFO, "ssntk"):
        ssntk.EulerMap(Calling(lambda: listener(silence.COMPILED, 100.0)), 1.0)
    assert listener.said
    text = capsys.readouterr().err
    assert text.startswith("ssntk: compiling")
    assert [record.getMessage() for record in caplog.records] == [text.rstrip("\n")]


def test_short_calls_and_other_events_are_silent(listener, capsys, caplog):
    with caplog.at_level(logging.INFO, "ssntk"):
        ssntk.EulerMap(Calling(lambda: (listener(silence.COMPILED, 0.1), listener("/jax/core/compile/other", 100.0))), 1.0)
        # Each of two calls compiles for less time than a note needs.
        ssntk.EulerMap(Calling(lambda: listener(silence.COMPILED, 0.6 * silence.PATIENCE)), 1.0)
        with pytest.raises(ValueError, match="'none' is not one of"):
            ssntk.Family(Calling(lambda: listener(silence.COMPILED, 0.6 * silence.PATIENCE)), "none")
    assert capsys.readouterr().err == ""
    assert not caplog.records


def test_nothing_is_shown_where_it_is_quiet_but_it_is_logged(listener, capsys, caplog):
    listener.quiet = True
    with caplog.at_level(logging.INFO, "ssntk"):
        ssntk.EulerMap(Calling(lambda: listener(silence.COMPILED, 100.0)), 1.0)
    assert capsys.readouterr().err == ""
    assert len(caplog.records) == 1


def test_progress_is_logged_too_and_nothing_is_without_being_asked(capsys, caplog):
    with caplog.at_level(logging.INFO, "ssntk"), progress.reporting("a sweep", 2, 0, 0, True) as tell:
        tell(2, 0)
    shown = capsys.readouterr().err.splitlines()
    assert [record.getMessage() for record in caplog.records] == shown
    assert len(shown) == 2
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("ssntk").handlers)


def test_the_listener_is_there_once():
    heard = []

    def listen(event, duration_secs, **_):
        heard.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    jax.jit(lambda x: x - 3.25)(jnp.ones(3))
    jax.monitoring.unregister_event_duration_listener(listen)
    # JAX reports compilations under this name.
    assert silence.COMPILED in heard
    silence.listen()
    assert silence.listen.cache_info().misses == 1
