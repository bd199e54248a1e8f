//! What keeps this node from its work, from what was seen of it: pure.

use holdfast_api::condition;
use holdfast_api::node::NodeProblem;

use crate::libvirt::{REMEDY, Reach};

/// The problems, the gravest first. None of them says anything that moves while it lasts.
pub(crate) fn of(reach: Reach) -> Vec<NodeProblem> {
    [hypervisor(reach)].into_iter().flatten().collect()
}

fn hypervisor(reach: Reach) -> Option<NodeProblem> {
    let problem = || NodeProblem {
        reason: condition::HYPERVISOR_UNREACHABLE.to_owned(),
        message: format!("libvirt does not answer: {REMEDY}"),
    };
    (reach == Reach::Silent).then(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_libvirt_that_does_not_answer_is_a_problem_of_the_node() {
        assert!(of(Reach::Answers).is_empty());
        assert_eq!(of(Reach::Silent)[0].reason, "HypervisorUnreachable");
    }
}
