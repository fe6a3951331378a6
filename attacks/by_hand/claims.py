"""False certificates, which the operator issues, signs and names in the log."""

from attacks.by_hand.forging import adding_to, result, said_of
from attacks.evidence import Evidence, Given, Json
from attacks.judge import CONTENT, FORM, Attack

ATTACKS: list[Attack] = []
attack = adding_to(ATTACKS)


@attack(CONTENT, "job.completed")
def a_verdict_is_upgraded(evidence: Evidence) -> Given:
    def alter(statement: Json) -> None:
        said = result(statement)
        said.update(verdict="pass")
        for test in said["tests"]:
            if test["moment"] == "after":
                test.update(passed=True, p_value=0.9)
        statement["predicate"]["scope"]["statement"] = "Model cnn: well."

    return evidence.reissued(evidence.failed, alter)


@attack(CONTENT, "does not follow from the tests")
def a_verdict_is_upgraded_beside_failed_tests(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.failed, lambda s: result(s).update(verdict="pass"))


@attack(CONTENT, "does not follow from its figures")
def a_failed_test_is_called_passed(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.failed, lambda s: result(s)["tests"][1].update(passed=True))


@attack(CONTENT, "does not follow from its figures")
def a_guard_is_called_passed_above_its_limit(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.main, lambda s: result(s)["tests"][2].update(low=0.5))


@attack(CONTENT, "does not follow from the tests")
def a_pass_has_no_tests(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.main, lambda s: result(s).update(tests=[]))


@attack(CONTENT, "does not follow from the tests")
def a_pass_hides_that_the_tests_had_no_power(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.main, lambda s: result(s)["tests"].pop(0))


@attack(CONTENT, "where the verdict is not pass")
def words_of_success_stand_beside_a_fail(evidence: Evidence) -> Given:
    words = "Model cnn: the samples were forgotten."
    return evidence.reissued(
        evidence.failed, lambda s: s["predicate"]["scope"].update(statement=words)
    )


@attack(CONTENT, "where the verdict is not pass")
def words_of_success_stand_in_a_line_of_their_own(evidence: Evidence) -> Given:
    def alter(statement: Json) -> None:
        statement["predicate"]["scope"]["statement"] += "\nIn short: a success."

    return evidence.reissued(evidence.failed, alter)


@attack(CONTENT, "no certificate can say")
def the_certificate_calls_itself_a_guarantee(evidence: Evidence) -> Given:
    def alter(statement: Json) -> None:
        statement["predicate"]["scope"]["statement"] += " This is guaranteed."

    return evidence.reissued(evidence.main, alter)


@attack(CONTENT, "says nothing about model")
def the_statement_is_about_another_model(evidence: Evidence) -> Given:
    words = "Model vit: influence reduced."
    return evidence.reissued(
        evidence.main, lambda s: s["predicate"]["scope"].update(statement=words)
    )


@attack(FORM, "not_proven")
def nothing_is_said_not_to_be_proven(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.main, lambda s: s["predicate"]["scope"].update(not_proven=[]))


@attack(CONTENT, "version.created")
def the_new_weights_are_swapped(evidence: Evidence) -> Given:
    def alter(statement: Json) -> None:
        digest = result(statement)["before"]["weights_sha256"]
        result(statement)["after"]["weights_sha256"] = digest
        statement["subject"][0]["digest"]["sha256"] = digest

    return evidence.reissued(evidence.main, alter)


@attack(CONTENT, "before.weights_sha256")
def the_old_weights_are_swapped(evidence: Evidence) -> Given:
    return evidence.reissued(
        evidence.main, lambda s: result(s)["before"].update(weights_sha256="0" * 64)
    )


@attack(CONTENT, "subject")
def the_statement_is_about_weights_that_its_results_do_not_name(evidence: Evidence) -> Given:
    digest = {"sha256": "0" * 64}
    return evidence.reissued(evidence.main, lambda s: s["subject"][0].update(digest=digest))


@attack(CONTENT, "no version.created")
def a_version_is_named_that_was_never_made(evidence: Evidence) -> Given:
    def alter(statement: Json) -> None:
        result(statement)["after"]["version"] = 9
        statement["subject"][0]["name"] = "cnn/versions/9"

    return evidence.reissued(evidence.main, alter)


@attack(CONTENT, "kind")
def an_approximate_version_is_called_exact(evidence: Evidence) -> Given:
    def alter(statement: Json) -> None:
        result(statement).update(kind="exact", oracle_used=True)
        result(statement)["method"]["mode"] = "exact"

    return evidence.reissued(evidence.main, alter)


@attack(CONTENT, "oracle_used")
def an_oracle_is_claimed(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.main, lambda s: result(s).update(oracle_used=True))


@attack(CONTENT, "nothing to forget")
def a_version_is_hidden_behind_nothing_to_forget(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.main, lambda s: result(s).update(kind="nothing_to_forget"))


@attack(CONTENT, "approval")
def the_approval_of_a_failed_version_is_left_out(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.failed, lambda s: result(s).update(approval=None))


@attack(CONTENT, "decided_by")
def somebody_else_is_said_to_have_approved(evidence: Evidence) -> Given:
    return evidence.reissued(
        evidence.failed, lambda s: result(s)["approval"].update(decided_by="board")
    )


@attack(CONTENT, "purged_at")
def weights_are_said_to_be_deleted_that_were_not(evidence: Evidence) -> Given:
    """The entry of the deletion is changed, after the older checkpoint."""
    entries = list(evidence.log.entries)
    purged = next(e["position"] for e in entries if e["event"] == "version.purged")
    log = evidence.log.edited(purged, event="version.looked_at")
    return evidence.reissued(evidence.main, lambda _: None, log)


@attack(CONTENT, "purged_at: the log says")
def weights_are_said_to_be_deleted_that_were_kept(evidence: Evidence) -> Given:
    """The entry says that another version still used the weights."""
    entries = list(evidence.log.entries)
    purged = next(e for e in entries if e["event"] == "version.purged")
    log = evidence.log.edited(purged["position"], data={**purged["data"], "kept": ["weights"]})
    return evidence.reissued(evidence.main, lambda _: None, log)


@attack(CONTENT, "request.commitment")
def the_commitment_is_another(evidence: Evidence) -> Given:
    """A commitment to sample ids other than those of the request."""
    return evidence.reissued(
        evidence.main, lambda s: s["predicate"]["request"].update(commitment="0" * 64)
    )


@attack(CONTENT, "request.samples")
def fewer_samples_are_said_to_have_been_named(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.main, lambda s: s["predicate"]["request"].update(samples=2))


@attack(CONTENT, "request.completed_at")
def the_completion_is_dated_back(evidence: Evidence) -> Given:
    at = "2026-03-01T08:00:00.000000Z"
    return evidence.reissued(
        evidence.main, lambda s: s["predicate"]["request"].update(completed_at=at)
    )


@attack(CONTENT, "issued.at")
def the_certificate_is_dated_back(evidence: Evidence) -> Given:
    at = "2026-03-01T08:00:00.000000Z"
    return evidence.reissued(evidence.main, lambda s: s["predicate"]["issued"].update(at=at))


@attack(CONTENT, "results")
def the_result_of_another_model_is_shown(evidence: Evidence) -> Given:
    other = said_of(evidence.main, "job.completed")["subject_id"]
    return evidence.reissued(evidence.main, lambda s: result(s).update(model_id=other))


@attack(CONTENT, r"accuracy: is left out, though version\.created")
def the_accuracy_of_a_lost_class_is_concealed(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.main, lambda s: result(s).pop("accuracy"))


@attack(CONTENT, "does not say that class 1 lost")
def the_words_conceal_a_lost_class(evidence: Evidence) -> Given:
    words = "Model cnn: influence reduced to within the measured range."
    return evidence.reissued(
        evidence.main, lambda s: s["predicate"]["scope"].update(statement=words)
    )


@attack(CONTENT, "whether it was accepted")
def an_accepted_accuracy_is_concealed(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.main, lambda s: result(s).pop("accepted_accuracy"))


@attack(CONTENT, "says otherwise on which backbone it was made")
def a_head_is_said_to_stand_on_a_backbone(evidence: Evidence) -> Given:
    def alter(statement: Json) -> None:
        result(statement)["method"]["config"]["backbone"] = {"sha256": ["0" * 64]}
        words = " Its backbone was never trained on the dataset; this was not measured."
        statement["predicate"]["scope"]["statement"] += words

    return evidence.reissued(evidence.main, alter)


@attack(CONTENT, "the backbone's training was declared, not measured")
def the_words_conceal_that_a_backbone_was_declared(evidence: Evidence) -> Given:
    def alter(statement: Json) -> None:
        result(statement)["method"]["config"]["backbone"] = {"sha256": ["0" * 64]}

    return evidence.reissued(evidence.main, alter)
