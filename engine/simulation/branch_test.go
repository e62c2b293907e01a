package simulation

import (
	"fmt"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// checkArms evaluates the conditions of branches anew: the arm that is taken is the first whose condition holds.
func (w *world) checkArms(s *snapshot) error {
	for _, row := range s.journal[s.run.entries:] {
		for _, e := range row.Entry.GetEvents() {
			taken := e.GetArmTaken()
			if taken == nil {
				continue
			}
			node := s.state.Ref(taken.GetNode())
			records, err := w.memory.NodeValues(w.ctx, s.record.ID, []aloft.NodeID{node.ID()})
			if err != nil {
				return err
			}
			inputs, err := w.value(records[0].Inputs)
			if err != nil {
				return err
			}
			text := inputs.GetLiterals()["v"].GetScalar().GetPrimitive().GetStringValue()
			block := node.Template().GetBranchNode().GetIfElse()
			want := uint32(0)
			for _, c := range append([]*core.IfBlock{block.GetCase()}, block.GetOther()...) {
				comparison := c.GetCondition().GetComparison()
				constant := comparison.GetRightValue().GetPrimitive().GetStringValue()
				if map[core.ComparisonExpression_Operator]bool{
					core.ComparisonExpression_EQ: text == constant, core.ComparisonExpression_NEQ: text != constant,
					core.ComparisonExpression_GT: text > constant, core.ComparisonExpression_GTE: text >= constant,
					core.ComparisonExpression_LT: text < constant, core.ComparisonExpression_LTE: text <= constant,
				}[comparison.GetOperator()] {
					break
				}
				want++
			}
			if taken.GetArm() != want {
				return fmt.Errorf("node %s takes arm %d, the first whose condition holds for %.20q is %d", node.ID(), taken.GetArm(), text, want)
			}
			w.count("arms of branches are taken")
		}
	}
	return nil
}
