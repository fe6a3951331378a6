import pytest

from domain.subjects import canonical


@pytest.mark.parametrize(
    "written", ["Zoë Ng", " Zoë Ng\n", "Zoe\u0308 Ng", "Zoë\u00a0 Ng", "Zoë\tNg"]
)
def test_one_person_is_one_text_however_it_is_written(written: str) -> None:
    assert canonical(written) == "Zoë Ng"


def test_letter_case_and_leading_zeros_tell_people_apart() -> None:
    assert len({canonical(each) for each in ("ab1", "Ab1", "7", "07", "+7")}) == 5


def test_joiners_are_part_of_a_name() -> None:
    assert canonical("\u0639\u200c\u0631") == "\u0639\u200c\u0631"


@pytest.mark.parametrize(
    ("subject", "why"),
    [
        ("", "empty"),
        (" \u3000\t", "empty"),
        ("x" * 513, "512 characters"),
        ("a\0b", "invisible"),
        ("anna\u200b", "invisible"),
        ("\ufeffanna", "invisible"),
        ("an\x07na", "invisible"),
        ("anna\ud800", "not valid text"),
        ("nan", "missing value"),
        (" None ", "missing value"),
        ("12.0", "12 for 12.0"),
        ("1e+16", "12 for 12.0"),
    ],
)
def test_what_could_mean_two_things_is_refused_without_repeating_it(subject: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        canonical(subject)
    assert "anna" not in str(refused.value)


def test_hexadecimal_account_numbers_are_no_floats() -> None:
    assert canonical("12e5") == "12e5"
    assert canonical("1.05") == "1.05"
