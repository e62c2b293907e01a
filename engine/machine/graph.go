package machine

// Kind is what a node does.
type Kind uint8

const (
	KindStart    Kind = iota + 1 // start-node: its outputs are the inputs of its scope
	KindEnd                      // end-node: its inputs are the outputs of its scope
	KindTask                     // one task
	KindWorkflow                 // a sub-workflow: a graph of its own
)

// Task types that the machine runs by itself.
const (
	TaskSleep = "core-sleep" // over when its one input, a duration, has passed
	TaskEcho  = "echo"       // its outputs are its inputs
)
