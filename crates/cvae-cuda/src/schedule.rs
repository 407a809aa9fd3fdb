//! The order of tasks: phases, each of tasks that may run at the same time.

use crate::lower::{Operand, TaskSpec};
use crate::task::{PointOp, TaskKind};

/// What a task reads and writes.
struct Access {
    reads: Vec<Operand>,
    writes: Vec<Operand>,
}

impl Access {
    fn new(index: usize, tasks: &[TaskSpec]) -> Self {
        let task = &tasks[index];
        let mut reads: Vec<Operand> = [task.a, task.b].into_iter().flatten().collect();
        reads.extend(task.pairs.iter().flat_map(|(a, b)| [*a, *b]));
        let mut writes = vec![];
        for point in &task.points {
            let operands = point.operands.iter().flatten();
            // An update changes its operands, and a search leaves its vectors there.
            match point.op == PointOp::Update || task.kind == TaskKind::Spectral {
                true => writes.extend(operands),
                false => reads.extend(operands),
            }
            writes.extend(point.store);
        }
        if task.has_partials() {
            writes.push(Operand::Partials(index));
        }
        reads.extend(task.clip_by.iter().chain(&task.measured_by).map(|other| Operand::Partials(*other)));
        if task.kind == TaskKind::FinishStep {
            writes.push(Operand::Losses);
            let terms = tasks.iter().enumerate().filter(|(_, task)| task.loss.is_some());
            reads.extend(terms.map(|(index, _)| Operand::Partials(index)));
        }
        Self { reads, writes }
    }

    /// Whether `later` must wait for `self`: one writes what the other touches.
    fn orders(&self, later: &Self) -> bool {
        let touches = |writes: &[Operand], other: &Self| {
            writes.iter().any(|operand| other.reads.contains(operand) || other.writes.contains(operand))
        };
        touches(&self.writes, later) || touches(&later.writes, self)
    }
}

/// The phase of every task, as early as its operands allow. A task's own points may read what it stored.
pub(crate) fn phases(tasks: &[TaskSpec]) -> Vec<usize> {
    let accesses: Vec<Access> = (0..tasks.len()).map(|index| Access::new(index, tasks)).collect();
    let mut phases: Vec<usize> = vec![];
    for (index, access) in accesses.iter().enumerate() {
        let earlier = accesses[..index].iter().zip(&phases);
        let phase = earlier.filter(|(other, _)| other.orders(access)).map(|(_, phase)| phase + 1).max();
        phases.push(phase.unwrap_or(0));
    }
    phases
}
