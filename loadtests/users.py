"""Who takes part in a load test. Runs under gevent; what happens on the wire is `member.py`."""

from __future__ import annotations

from typing import ClassVar

import gevent
import writing
from crew import Crew
from locust import User, task


class YjsUser(User):
    """Somebody in a room, with a document of their own that a member keeps in step with it.

    A task edits and returns, or waits between two edits; never inside one.
    """

    abstract = True
    role: ClassVar[str]
    crew: ClassVar[Crew]  # set when the run starts
    think_seconds: ClassVar[float] = 1.0

    def __init__(self, environment: object) -> None:
        super().__init__(environment)
        self.member = self.crew.enlist(self.role)
        self.provider = self.member.provider
        self.chance = self.crew.chance

    def on_start(self) -> None:
        # Locust starts a second's worth of users at once.
        self.member.start(within_seconds=1)

    @property
    def may_act(self) -> bool:
        return self.crew.is_writing and not self.provider.is_clogged

    def wait_time(self) -> float:
        """Poisson arrivals: nobody types in step with anybody else."""
        return self.chance.expovariate(1 / self.think_seconds)


class Editor(YjsUser):
    """A person: types a word at a time, goes elsewhere now and then, takes something back."""

    role = "editor"
    weight = 6

    def __init__(self, environment: object) -> None:
        super().__init__(environment)
        self._cursor = 0

    @task
    def type(self) -> None:
        if not self.may_act:
            return
        what = self.chance.random()
        if what < 0.1:
            self._cursor = self.chance.randrange(len(str(self.provider.text)) + 1)
        if what > 0.85:
            count = self.chance.randint(1, 12)
            self._cursor = max(0, self._cursor - count)
            with self.provider.editing() as text:
                writing.erase(text, self._cursor, count)
        else:
            word = writing.words(1, self.chance)
            with self.provider.editing() as text:
                writing.insert(text, self._cursor, word)
            self._cursor += len(word)


class Reader(YjsUser):
    """Reads along; its cursor moves."""

    role = "reader"
    weight = 3

    @task
    def look(self) -> None:
        if self.may_act:
            self.provider.renew(cursor=self.chance.randrange(1000))


class Agent(YjsUser):
    """A program that writes plain text: a long passage at the end, in batches as a model makes them, then a rest."""

    role = "agent"
    weight = 1
    batches, words_per_batch, batch_seconds = 20, 15, 0.08

    @task
    def write(self) -> None:
        for _ in range(self.batches):
            if not self.may_act:
                return
            passage = writing.words(self.words_per_batch, self.chance)
            with self.provider.editing() as text:
                writing.append(text, passage)
            gevent.sleep(self.batch_seconds)

    def wait_time(self) -> float:
        return 5 * super().wait_time()
