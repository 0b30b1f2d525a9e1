"""What `enginesmith inspect` and `enginesmith build` show of a verification on held-out samples."""

from enginesmith_cli.verification_lines import describe_verification, summarize_verification
from enginesmith_contract.verification import (
    Decode,
    FirstFall,
    OutputAgreement,
    OutputDifference,
    OutputGate,
    Verification,
    VerificationStatus,
)

_VERIFICATION = Verification(
    status=VerificationStatus.PASSED,
    differences=(OutputDifference(output="y", profile="default", point="opt", difference=0.21),),
    judged_on="40 held-out samples",
    agreements=(
        OutputAgreement(
            output="y",
            decode=Decode.ARGMAX,
            inferred="its values add up to 1 along axis 1",
            axis=1,
            samples=40,
            answers=40,
            agreement=0.975,
            limit=0.97,
            worst="sample 'a' differs in 1 of 1",
            cosine=0.93,
            mean_relative_error=0.05,
            sqnr_db=14.25,
        ),
    ),
    alarms=("output 'y': cosine 0.93, usual above 0.95",),
    first_fall=FirstFall(tensor="t", node="n", op="QuantizeLinear", sqnr_db=3, before_db=30, range=9, largest=1.5),
)


def test_inspect_shows_the_agreement_its_inference_alarms_and_the_first_fall() -> None:
    lines = [line.strip() for line in describe_verification(_VERIFICATION)]
    assert lines[:2] == ["verification   passed", "judged on 40 held-out samples"]
    assert lines[2].startswith("y, argmax along axis 1, inferred: its values add up to 1 along axis 1: agreement 0.975")
    assert lines[2].endswith("SQNR 14.2 dB; sample 'a' differs in 1 of 1")
    assert lines[3] == "y, profile default, opt: maxRelative 0.21"
    assert lines[4] == "alarm: output 'y': cosine 0.93, usual above 0.95"
    assert lines[5].startswith(
        "SQNR first falls at tensor 't' (QuantizeLinear 'n'): 3.0 dB after 30.0 dB; its range is 9"
    )


def test_build_shows_the_smallest_agreement_or_what_else_it_judged_on() -> None:
    assert summarize_verification(_VERIFICATION) == (
        "smallest agreement 0.975 on 40 held-out samples; y decoded as argmax along axis 1, inferred: "
        "its values add up to 1 along axis 1; largest difference 0.21"
    )
    gates = {"z": OutputGate(limit=0.05)}
    differences = tuple(
        OutputDifference(output=output, profile="default", difference=difference)
        for output, difference in (("x", 0.0009), ("z", 0.02))
    )
    own = Verification(status=VerificationStatus.PASSED, limit=0.001, outputs=gates, differences=differences)
    assert summarize_verification(own) == (
        "largest difference 0.0009 of x, limit 0.001; largest difference 0.02 of z, limit 0.05"
    )
    (largest,) = differences[1:]
    alone = own.model_copy(update={"differences": (largest,)})
    assert summarize_verification(alone) == "largest difference 0.02, limit 0.05"
    generated = Verification(status=VerificationStatus.PASSED, limit=0.1, judged_on="generated inputs")
    assert summarize_verification(generated) == "judged on generated inputs"
