"""A family of tests of one hypothesis, and what is known of each test."""

from dataclasses import dataclass

ALPHA = 0.03
"""Familywise error of the tests. At 0.05 too few retrained models passed: docs/audit.md."""

PERMUTATIONS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One figure, with what it is compared to."""

    __test__ = False  # for pytest: this is not one of its tests

    name: str
    value: float
    low: float | None
    """The lower end of a family test's simultaneous interval; the only bound of a one-sided
    test."""

    high: float | None
    expected: float
    threshold: float
    """For a family test, the largest passing distance between value and `expected`; for a one-sided
    test, what `low` must not exceed."""

    p_value: float
    """For a family test, adjusted for the family."""

    forget_samples: int
    """Number of forget samples compared; 0 for a test that looks at others only."""

    holdout_samples: int
    """Number of samples the forget samples were compared to, or a guard was measured on."""

    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Tests of one hypothesis: to the model, forget samples look like samples it never saw."""

    tests: tuple[Test, ...]
    """Empty when no forget sample could be compared."""

    p_value: float
    """The smallest of the adjusted p-values; 1 when there are no tests."""

    remarks: tuple[str, ...]
    """What was left out, and the reason."""

    unclear: tuple[str, ...] = ()
    """Names of failing tests that say nothing of training: the samples differ in a way that their
    difficulty could explain as well."""

    lacking: str | None = None
    """Why the tests could not speak for the forget set, whatever they found, and what would help;
    None if they can."""

    @property
    def failed(self) -> tuple[Test, ...]:
        """The tests by which the samples can be told from samples that the model never saw."""
        return tuple(t for t in self.tests if not t.passed and t.name not in self.unclear)

    @property
    def rejected(self) -> bool:
        """Whether a test fails, so the samples can be told apart."""
        return bool(self.failed)
