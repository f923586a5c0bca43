"""What must hold in every vertex job, whatever goes wrong, seen from within the program that it runs.

Every message is a token, which names its superstep and its sender. The model is told of each that is sent, of each
that comes, of each vertex that computes or halts, of each hand-out, and of each epoch that is decided.

- **mail**: what a vertex is given in superstep s is what was sent to it in s - 1: nothing is lost, nothing comes twice,
  nothing is from another superstep or for another vertex.
- **barrier**: superstep s is computed by every vertex that has not halted in s - 1 or has mail, once, and by no other;
  nobody computes s before all of s - 1 is done. What an aggregator says is the sum over all of them.
- **checkpoint**: an epoch begins with the superstep behind the last one that was decided, no earlier and no later.
- **answer**: the same as where nothing goes wrong, after the same number of supersteps.
- **liveness**: the job ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

from p2premap.vertex.program import VertexProgram

SUPERSTEPS = 9
IDS = 12


class Token(NamedTuple):
    """A message."""

    superstep: int
    sender: int
    number: int

    def as_number(self) -> int:
        """It as an integer."""
        return (self.superstep * 1_000 + self.sender) * 1_000 + self.number

    @classmethod
    def of_number(cls, number: int) -> Token:
        """The one that `as_number` gave."""
        front, last = divmod(number, 1_000)
        return cls(*divmod(front, 1_000), last)


class Violated(AssertionError):
    """Something that must hold does not.

    Args:
        invariant: its name; planted bugs are recognised by it.
    """

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant


class Superstep:
    """What has been said of one superstep, as one gang computes it."""

    __slots__ = ("came", "computed", "halted", "sent")

    def __init__(self) -> None:
        self.sent: Counter[tuple[Hashable, Token]] = Counter()
        self.came: Counter[tuple[Hashable, Token]] = Counter()
        self.computed: set[Hashable] = set()
        self.halted: set[Hashable] = set()


class Model:
    """Watches one job.

    Args:
        creates: mail makes vertices.

    Attributes:
        running: the number of the gang that computes just now.
        redone: supersteps that were begun more than once.
        violated: the first thing that did not hold; the program raises it as well, where engine and form may wrap it.
    """

    def __init__(self, *, creates: bool) -> None:
        self.running = 0
        self.redone = 0
        self.violated: Violated | None = None
        self._creates = creates
        self._loaded: set[Hashable] = set()
        self._gangs: dict[int, dict[int, Superstep]] = {}
        self._first: dict[int, int] = {}
        self._decided: dict[int, Superstep] = {}
        self._begun: Counter[int] = Counter()

    # --- what the walk says ---------------------------------------------------------------------------------------

    def loaded(self, ids: Iterable[Hashable]) -> None:
        """The vertices at the beginning."""
        self._loaded = set(ids)

    def handed_out(self, gang: int, superstep: int) -> None:
        """An epoch is handed out, of which this is the first superstep."""
        self._first[gang] = superstep
        self._gangs[gang] = {}

    def pinned(self, gang: int) -> None:
        """The epoch of this gang is decided."""
        told = self._gangs[gang]
        if told:
            self._check_done(gang, max(told))
        self._decided.update(told)

    def ended(self, superstep: int) -> None:
        """The job is over after so many supersteps."""
        last = self._decided.get(superstep - 1, Superstep())
        there = self._vertices_then(self._decided, superstep)
        waiting = (last.computed - last.halted) | {to for to, _ in last.sent if to in there}
        if waiting:
            self._fail("barrier", f"the job ended before superstep {superstep}, which {waiting} wait for")

    def _fail(self, invariant: str, text: str) -> NoReturn:
        self.violated = self.violated or Violated(invariant, text)
        raise self.violated

    # --- what must hold -------------------------------------------------------------------------------------------

    def _of(self, gang: int, superstep: int) -> Superstep:
        """A superstep as this gang computes it, or has been given it by a checkpoint."""
        own = self._gangs[gang].get(superstep)
        return own if own is not None else self._decided.get(superstep, Superstep())

    def _vertices(self, gang: int, superstep: int) -> set[Hashable]:
        """Those that there are."""
        return self._vertices_then({**self._decided, **self._gangs[gang]}, superstep)

    def _vertices_then(self, told: Mapping[int, Superstep], superstep: int) -> set[Hashable]:
        found = set(self._loaded)
        if self._creates:
            found.update(to for before in range(superstep) if before in told for to, _ in told[before].sent)
        return found

    def _check_done(self, gang: int, superstep: int) -> None:
        """Everybody has computed who had to, and everything has come."""
        now, before = self._of(gang, superstep), self._of(gang, superstep - 1)
        there = self._vertices(gang, superstep)
        mail = {key: count for key, count in before.sent.items() if key[0] in there}
        due = there if superstep == 0 else (before.computed - before.halted) | {to for to, _ in mail}
        if missing := Counter(mail) - now.came:
            to, token = next(iter(missing))
            self._fail("mail", f"{token} was sent to vertex {to}, and never came")
        if now.computed != due:
            self._fail("barrier", f"superstep {superstep} was computed by {now.computed}, not by {due}")

    # --- what vertices say ----------------------------------------------------------------------------------------

    def computes(self, superstep: int, id: Hashable, tokens: Iterable[Token]) -> None:
        """A vertex computes, with this mail."""
        gang = self.running
        told = self._gangs[gang]
        if superstep < self._first[gang]:
            self._fail("checkpoint", f"superstep {superstep} is computed again, which a checkpoint holds")
        if superstep not in told:
            self._begin(gang, superstep)
        if superstep != max(told):
            self._fail("barrier", f"vertex {id} computes superstep {superstep}, others {max(told)} already")
        now, before = told[superstep], self._of(gang, superstep - 1)
        if id in now.computed:
            self._fail("barrier", f"vertex {id} computes superstep {superstep} twice")
        now.computed.add(id)
        for token in tokens:
            if token.superstep != superstep - 1:
                self._fail("mail", f"{token} came in superstep {superstep}")
            now.came[id, token] += 1
            if now.came[id, token] > before.sent[id, token]:
                self._fail("mail", f"{token} came to vertex {id} more often than it was sent there")

    def _begin(self, gang: int, superstep: int) -> None:
        """The first vertex computes a superstep."""
        told = self._gangs[gang]
        expected = max(told) + 1 if told else self._first[gang]
        if superstep != expected:
            self._fail("checkpoint", f"superstep {superstep} is computed where {expected} is due")
        if told:
            self._check_done(gang, superstep - 1)
        told[superstep] = Superstep()
        self._begun[superstep] += 1
        self.redone += self._begun[superstep] > 1

    def sends(self, token: Token, to: Iterable[Hashable]) -> None:
        """A vertex sends."""
        self._of(self.running, token.superstep).sent.update((one, token) for one in to)

    def halts(self, superstep: int, id: Hashable) -> None:
        """A vertex votes to halt."""
        self._of(self.running, superstep).halted.add(id)

    def hears(self, superstep: int, computed: object, sent: object) -> None:
        """What the aggregators say of the superstep before."""
        before = self._of(self.running, superstep - 1)
        true = (len(before.computed), before.sent.total())
        if superstep and (computed, sent) != true:
            self._fail("barrier", f"superstep {superstep} hears of {computed} and {sent}, instead of {true}")


class TokenProgram(VertexProgram):
    """Sends tokens in all ways; a vertex keeps what came, so that the answer is about everything that happened.

    Args:
        model: is told.
        plain: tokens travel as they are; else as numbers, of which mail makes arrays.
        steady: the same vertices send to the same ones again and again.
    """

    aggregators = {"computed": "sum", "sent": "sum"}  # noqa: RUF012

    def __init__(self, model: Model, *, plain: bool, steady: bool) -> None:
        self._model = model
        self._plain = plain
        self._steady = steady

    def create(self, id: Hashable) -> Any:  # noqa: ANN401  (see there)
        """See `VertexProgram`."""
        return []

    def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:  # noqa: ANN401  (see there)
        """See `VertexProgram`."""
        superstep, model, draw = ctx.superstep, self._model, ctx.rng
        tokens = [message if self._plain else Token.of_number(message) for message in self._unpacked(messages)]
        model.computes(superstep, vertex.id, tokens)
        model.hears(superstep, ctx.aggregates.get("computed", 0), ctx.aggregates.get("sent", 0))
        vertex.value = [*vertex.value, (superstep, sorted(tokens), vertex.edges, ctx.vertices, ctx.edges)]
        last = superstep >= SUPERSTEPS - 1
        sent = 0 if last else self._send(ctx, vertex, draw)
        if not (last or self._steady):
            self._change(ctx, vertex, draw)
        ctx.aggregate("computed", 1)
        ctx.aggregate("sent", sent)
        if last or (not self._steady and draw.random() < 0.6):
            model.halts(superstep, vertex.id)
            ctx.halt()

    def _send(self, ctx: Any, vertex: Any, draw: Any) -> int:  # noqa: ANN401  (see above)
        """Some tokens, in all ways; how many went where."""
        total = 0
        ways = (0, 1, 2) if self._steady else [draw.randrange(3) for _ in range(draw.randrange(4))]
        for number, way in enumerate(ways):
            token = Token(ctx.superstep, vertex.id, number)
            message = self._packed(token if self._plain else token.as_number())
            some = [(vertex.id * 5 + k) % IDS for k in range(3)] if self._steady else []
            to = some or [draw.randrange(IDS) for _ in range(draw.randrange(1, 4))]
            match way:
                case 0:
                    to = to[:1]
                    ctx.send(to[0], message)
                case 1:
                    ctx.send(to, message)
                case _:
                    to = list(vertex.edges)
                    ctx.send.all(message)
            self._model.sends(token, to)
            total += len(to)
        return total

    @staticmethod
    def _change(ctx: Any, vertex: Any, draw: Any) -> None:  # noqa: ANN401  (see above)
        if draw.random() < 0.1:
            ctx.add_edge(vertex.id, draw.randrange(IDS))
        if draw.random() < 0.1 and vertex.edges:
            ctx.remove_edge(vertex.id, draw.choice(vertex.edges))

    @staticmethod
    def _packed(message: Any) -> Any:  # noqa: ANN401  (a token, or what combines)
        return message

    @staticmethod
    def _unpacked(messages: Any) -> Any:  # noqa: ANN401  (see above)
        return messages


class CombinedTokens(TokenProgram):
    """Tokens are combined: tuples of them are put together."""

    combiner = "sum"

    @staticmethod
    def _packed(message: Any) -> Any:  # noqa: ANN401  (see above)
        return (message,)

    @staticmethod
    def _unpacked(messages: Any) -> Any:  # noqa: ANN401  (see above)
        return [one for message in messages for one in message]
