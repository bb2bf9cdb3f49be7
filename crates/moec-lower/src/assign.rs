//! Balanced assignments: a step with room to remember the moves between experts.

use moec_ir::{Node as ModelNode, ops};
use moec_plan::{Assign, Extent, Rows, Source, StepKind};
use moec_types::{DType, Size};

use crate::{
    Unsupported,
    access::whole,
    context::{Lowering, Place},
    program::RowAxis,
};

/// With more experts the room, which grows with their square, and the time are no longer reasonable.
const MOST_EXPERTS: u64 = 1024;

impl Lowering<'_> {
    pub fn assign(&mut self, op: &ops::Assign, node: &ModelNode) -> Result<(), Unsupported> {
        let ty = self.module.tensor(node.operands[0]).clone();
        let size = |axis| ty.dim(axis).expect("verified: the axis is there").size.clone();
        let experts = size(op.experts()).fixed().expect("verified: a fixed number of experts");
        if experts > MOST_EXPERTS {
            let reason = format!("{experts} experts are too many for a balanced assignment");
            return Err(self.unsupported(node, reason, format!("use at most {MOST_EXPERTS} experts")));
        }
        let tokens = match size(op.tokens()) {
            Size::Fixed(tokens) => Rows::Fixed(tokens),
            symbolic @ (Size::Input(_) | Size::Share { .. } | Size::Slots { .. } | Size::Past(_)) => {
                self.row_count(&symbolic).expect("it is symbolic")
            }
        };
        if tokens == Rows::Positions {
            let reason = "its tokens are all positions up to now";
            return Err(self.unsupported(node, reason, "assign those of this pass"));
        }
        let along = RowAxis { axis: op.tokens().clone(), rows: tokens };
        let dims = [(op.experts().clone(), Extent::Fixed(experts))];
        let score = self.new_buffer("scores", DType::F32, tokens, experts);
        let target = whole(Source::Row(score), &dims);
        self.copy_rows(node.operands[0], Some(along), tokens, &dims, target, node.at)?;
        let out = self.result_buffer(node.results[0], node.at)?;
        self.places.insert(node.results[0], Place::Buffer(out));
        let room = self.new_buffer("moves", DType::I32, Rows::ONE, Assign::room_elements(experts));
        let most = self.extent(&op.most);
        self.step(StepKind::Assign(Assign { tokens, score, experts, most, out, room }), node.at, "assign");
        Ok(())
    }
}
