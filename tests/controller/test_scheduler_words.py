"""The scheduler's sentence in the operator's words: how many nodes lack what, and what helps."""

import pytest

from enginesmith_operator.controller.shared.scheduler_words import explain_scheduling

GPU = "nvidia.com/gpu"
ELSEWHERE = "node(s) didn't match Pod's node affinity/selector"
PREEMPTION = "preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not."


@pytest.mark.parametrize(
    ("words", "want"),
    [
        (
            f"0/3 nodes are available: 1 Insufficient {GPU}, 2 {ELSEWHERE}. {PREEMPTION}",
            f"the only node that fits has no free {GPU}; 2 nodes are not for it (another GPU, or other labels)",
        ),
        (f"0/2 nodes are available: 2 Insufficient {GPU}.", f"none of the 2 nodes that fit has a free {GPU}"),
        (
            (
                f"0/4 nodes are available: 1 Insufficient {GPU}, 1 node(s) had untolerated taint {{a: b}}, "
                "1 node(s) were unschedulable, 1 Insufficient cpu. no new claims to deallocate, preemption: none."
            ),
            (
                f"the only node that fits has no free {GPU}; 1 node is tainted {{a: b}} (spec.podTemplate.tolerations)"
                "; 1 node is cordoned (kubectl uncordon); 1 node has too little cpu"
            ),
        ),
        (
            "0/2 nodes are available: 2 node(s) had untolerated taint(s). preemption: not helpful.",
            "no node takes the pod: 2 nodes are tainted (spec.podTemplate.tolerations)",
        ),
        (
            f"0/2 nodes are available: 1 Insufficient nvidia.com/gpu.shared, 1 {ELSEWHERE}.",
            (
                "no node takes the pod: 1 node has too little nvidia.com/gpu.shared; "
                "1 node is not for it (another GPU, or other labels)"
            ),
        ),
        (
            "0/1 nodes are available: 1 node(s) had volume node affinity conflict.",
            "no node takes the pod: 1 node: had volume node affinity conflict",
        ),
        ("running PreBind plugin: timeout", "running PreBind plugin: timeout"),
        ("0/3 nodes are available", "0/3 nodes are available"),
    ],
)
def test_a_sentence_says_how_many_nodes_lack_what(words: str, want: str) -> None:
    assert explain_scheduling(words, GPU) == want


def test_a_pod_without_a_gpu_may_lack_one_that_it_never_asked_for() -> None:
    words = "0/1 nodes are available: 1 Insufficient memory."
    assert explain_scheduling(words) == "no node takes the pod: 1 node has too little memory"
