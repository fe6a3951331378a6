"""`python -m attacks`: attack an honest bundle in every known way, report misses."""

import sys
from collections import Counter
from collections.abc import Sequence

from attacks import by_hand, generated, story
from attacks.evidence import Evidence
from attacks.judge import Attack, Judgement, judge, run, verify


def main() -> int:
    evidence = story.evidence()
    for given in (evidence.main, evidence.other, evidence.failed):
        exit_status, reason = judge(given)
        if exit_status:
            print(
                f"The honest bundle itself is refused: {reason}. Repair the verifier or "
                "attacks/story.py first."
            )
            return 1
    judgements = run(everything(evidence), evidence)
    print(table(judgements))
    print(last_line(judgements), flush=True)
    return 0 if all(each.caught for each in judgements) else 1


def everything(evidence: Evidence) -> list[Attack]:
    """Handwritten attacks first."""
    return [*by_hand.ATTACKS, *generated.attacks(evidence)]


def table(judgements: Sequence[Judgement]) -> str:
    """One line per handwritten attack, one per kind of generated attack, and one for everything not
    caught."""
    by_names = {attack.name for attack in by_hand.ATTACKS}
    hand = [each for each in judgements if each.attack.name in by_names]
    more = [each for each in judgements if each.attack.name not in by_names]
    lines = [f"{'attack':<66} {'caught as':<12} reason", *map(_line, hand)]
    if more:
        lines.append(f"\n{'generated':<66} tried caught")
    kinds = Counter(each.attack.name.partition(":")[0] for each in more)
    caught = Counter(each.attack.name.partition(":")[0] for each in more if each.caught)
    lines += [f"{kind:<66} {count:>5} {caught[kind]:>6}" for kind, count in kinds.items()]
    lines += [_line(each) for each in more if not each.caught]
    return "\n".join(lines)


def last_line(judgements: Sequence[Judgement]) -> str:
    return f"attacks: tried={len(judgements)} caught={sum(each.caught for each in judgements)}"


def _line(judgement: Judgement) -> str:
    if not judgement.caught:
        expected = verify.Code(judgement.attack.exit_status).name.lower()
        reason = f"{judgement.reason:.90} (expected: {expected}, {judgement.attack.says!r})"
        return f"{judgement.attack.name:<66} {'NOT CAUGHT':<12} {reason}"
    found = verify.Code(judgement.exit_status).name.lower()
    return f"{judgement.attack.name:<66} {found:<12} {judgement.reason:.90}"


if __name__ == "__main__":
    sys.exit(main())
