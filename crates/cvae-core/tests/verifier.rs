//! Each rule of the verifier, broken on purpose.

use cvae_core::{
    Activation, ColumnGroup, ColumnKind, Corruption, Graph, Jacobian, ModelSpec, Objective, Op, OptimizerSpec, ParamId,
    ParamLayout, Plan, Shape, ValueId, VerifyError, VerifyRule,
};

/// A training graph with every op but the collapsed prior, and its layout.
fn variational() -> (Graph, ParamLayout) {
    let spec = ModelSpec::mlp(&[7, 5, 3], Activation::Relu, Activation::Identity).unwrap();
    let objective = Objective { decoder_l2: 0.1, ..Objective::vae(1.0) };
    let plan = Plan::new(spec, objective, OptimizerSpec::default(), 0, 4).unwrap();
    (plan.program.train, plan.params)
}

fn position(graph: &Graph, name: &str) -> usize {
    graph.ops.iter().position(|op| op.name() == name).unwrap_or_else(|| panic!("no {name} in\n{graph}"))
}

/// Verifies the graph after `corrupt` changed its first op called `name`.
fn corrupted(name: &str, corrupt: impl FnOnce(&mut Op)) -> (usize, Result<(), VerifyError>) {
    let (mut graph, layout) = variational();
    assert_eq!(graph.verify(&layout), Ok(()));
    let index = position(&graph, name);
    corrupt(&mut graph.ops[index]);
    (index, graph.verify(&layout))
}

fn assert_breaks(name: &str, expected: VerifyRule, corrupt: impl FnOnce(&mut Op)) {
    let (index, found) = corrupted(name, corrupt);
    assert_eq!(found, Err(VerifyError { op: index, rule: expected }));
}

#[test]
fn reading_before_definition() {
    assert_breaks("act", VerifyRule::UndefinedValue(9), |op| {
        let Op::Act { input, .. } = op else { unreachable!() };
        *input = ValueId(9);
    });
}

#[test]
fn reading_a_value_that_the_graph_lacks() {
    assert_breaks("add_scaled", VerifyRule::UndefinedValue(1000), |op| {
        let Op::AddScaled { b, .. } = op else { unreachable!() };
        *b = ValueId(1000);
    });
}

#[test]
fn an_output_that_nothing_defines() {
    let (graph, layout) = variational();
    let expected = VerifyError { op: 0, rule: VerifyRule::UndefinedValue(1) };
    let undefined = Graph { ops: vec![], output: Some(ValueId(1)), ..graph.clone() };
    assert_eq!(undefined.verify(&layout), Err(expected));
    let input = Graph { ops: vec![], output: Some(graph.input), ..graph };
    assert_eq!(input.verify(&layout), Ok(()), "the input is defined");
}

#[test]
fn defining_twice() {
    assert_breaks("act", VerifyRule::Redefinition(1), |op| {
        let Op::Act { output, .. } = op else { unreachable!() };
        *output = ValueId(1);
    });
    assert_breaks("linear", VerifyRule::Redefinition(0), |op| {
        let Op::Linear { output, .. } = op else { unreachable!() };
        *output = ValueId(0);
    });
    assert_breaks("noise", VerifyRule::Redefinition(1000), |op| {
        let Op::Noise { output, .. } = op else { unreachable!() };
        *output = ValueId(1000);
    });
}

/// Every op with operands of unequal, or unfitting, size.
#[test]
fn sizes_that_do_not_fit() {
    let (graph, layout) = variational();
    for (index, op) in graph.ops.iter().enumerate() {
        let operands = [op.reads(), op.writes()].concat();
        if operands.len() < 2 {
            continue;
        }
        let mut wrong = graph.clone();
        let last = operands[operands.len() - 1];
        wrong.values[last.index()] = Shape::flat(graph.size(last) + 1);
        let error = wrong.verify(&layout).expect_err("a size was changed");
        assert!(matches!(error.rule, VerifyRule::Size { .. }), "{op}: {error}");
        assert!(error.op <= index, "{op}: {error}");
    }
    assert_breaks("reconstruction", VerifyRule::Size { value: 0, expected: 3, found: 7 }, |op| {
        let Op::Reconstruction { prediction, .. } = op else { unreachable!() };
        *prediction = ValueId(3);
    });
}

#[test]
fn parameters_that_do_not_fit() {
    assert_breaks("linear", VerifyRule::Param(1), |op| {
        let Op::Linear { weight, .. } = op else { unreachable!() };
        *weight = ParamId(1);
    });
    assert_breaks("linear", VerifyRule::Param(99), |op| {
        let Op::Linear { weight, .. } = op else { unreachable!() };
        *weight = ParamId(99);
    });
    assert_breaks("linear_grad_weight", VerifyRule::Param(3), |op| {
        let Op::LinearGradWeight { bias, .. } = op else { unreachable!() };
        *bias = Some(ParamId(3));
    });
    assert_breaks("linear_grad_input", VerifyRule::Param(50), |op| {
        let Op::LinearGradInput { weight, .. } = op else { unreachable!() };
        *weight = ParamId(50);
    });
    assert_breaks("param_norm", VerifyRule::Param(77), |op| {
        let Op::ParamNorm { params, .. } = op else { unreachable!() };
        params.push(ParamId(77));
    });
}

#[test]
fn tables_of_columns_and_positions_that_do_not_fit() {
    let spec = ModelSpec::mlp(&[7, 5, 3], Activation::Tanh, Activation::Identity).unwrap();
    let objective = Objective {
        columns: vec![ColumnGroup::new(ColumnKind::Numeric, 3), ColumnGroup::new(ColumnKind::Categorical, 4)],
        top_k: Some(2),
        jacobian: Jacobian::Contractive { weight: 1.0 },
        ..Objective::denoising(Corruption::Permutation { share: 0.5 })
    };
    let plan = Plan::new(spec, objective, OptimizerSpec::default(), 0, 4).unwrap();
    let graph = plan.program.train;
    assert_eq!(graph.verify(&plan.params), Ok(()));
    let breaks = |name: &str, expected: usize, found: usize, corrupt: &dyn Fn(&mut Op)| {
        let mut wrong = graph.clone();
        let index = position(&wrong, name);
        corrupt(&mut wrong.ops[index]);
        let rule = VerifyRule::Columns { expected, found };
        assert_eq!(wrong.verify(&plan.params), Err(VerifyError { op: index, rule }));
    };
    let shorten = |op: &mut Op| match op {
        Op::Mask { units, .. } | Op::Permute { units, .. } => units.truncate(6),
        Op::MixedReconstruction { columns, .. } => columns.truncate(1),
        _ => unreachable!(),
    };
    breaks("mask", 6, 7, &shorten);
    breaks("permute", 6, 7, &shorten);
    breaks("mixed_reconstruction", 3, 7, &shorten);
    for wrong in [0, 4] {
        breaks("top_k", wrong, 3, &|op| {
            let Op::TopK { k, .. } = op else { unreachable!() };
            *k = wrong;
        });
    }
    breaks("unit_vector", 4, 3, &|op| {
        let Op::UnitVector { index, .. } = op else { unreachable!() };
        *index = 3;
    });

    // A further pair of a weight's gradient has the weight's sizes.
    let mut wrong = graph.clone();
    let index = position(&wrong, "linear_grad_weight");
    let Op::LinearGradWeight { extra, input, grad, .. } = &mut wrong.ops[index] else { unreachable!() };
    extra.push((*grad, *input));
    let error = wrong.verify(&plan.params).unwrap_err();
    assert!(error.op == index && matches!(error.rule, VerifyRule::Size { .. }), "{error}");
}

#[test]
fn gradients_that_are_missing_or_doubled() {
    let (graph, layout) = variational();
    let index = position(&graph, "linear_grad_weight");
    let Op::LinearGradWeight { weight, bias: Some(bias), .. } = graph.ops[index] else { unreachable!() };

    let mut missing = graph.clone();
    missing.ops.remove(index);
    let rule = VerifyRule::GradientCount { param: weight.0, count: 0 };
    assert_eq!(missing.verify(&layout), Err(VerifyError { op: graph.ops.len() - 1, rule }));

    let mut doubled = graph.clone();
    doubled.ops.insert(index, graph.ops[index].clone());
    let rule = VerifyRule::GradientCount { param: weight.0, count: 2 };
    assert_eq!(doubled.verify(&layout), Err(VerifyError { op: graph.ops.len() + 1, rule }));

    let mut without_bias = graph.clone();
    if let Op::LinearGradWeight { bias, .. } = &mut without_bias.ops[index] {
        *bias = None;
    }
    let rule = VerifyRule::GradientCount { param: bias.0, count: 0 };
    assert_eq!(without_bias.verify(&layout), Err(VerifyError { op: graph.ops.len(), rule }));
}

#[test]
fn a_program_names_the_broken_graph_s_op() {
    let spec = ModelSpec::mlp(&[4, 2], Activation::Relu, Activation::Identity).unwrap();
    let mut plan = Plan::new(spec, Objective::ae(), OptimizerSpec::default(), 0, 4).unwrap();
    plan.program.decode.ops.clear();
    let error = plan.program.verify(&plan.params).unwrap_err();
    assert_eq!(error.to_string(), "op 0: reads %1 before it is defined");
}
