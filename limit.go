package aloft

// Limits, each stated once, named in the message of its refusal, and listed in docs/limits.md. They are generous: a pipeline
// needs a small part of them. Without them one request could fill what all requests share: a page of a list, the transaction of
// the one writer, the memory.
const (
	// Names.
	MaxName          = 255  // bytes of a project, domain, name or version
	MaxExecutionName = 63   // characters, a part of a Kubernetes object's name
	MaxLabelText     = 63   // bytes of a label's name or value, as in Kubernetes
	MaxTag           = 255  // characters of a tag of an execution, as in Flyte
	MaxResultTag     = 300  // bytes of the tag of a cached result
	MaxCacheVersion  = 200  // bytes
	MaxAbortCause    = 255  // bytes, the rest is cut off
	MaxPrefix        = 1000 // bytes of the place below which tasks write files

	// What describes an execution or a launch plan, which lists repeat.
	MaxSpecBytes    = 1 << 20 // all of it: annotations, environment variables, labels, tags, notifications, roles
	MaxLabels       = 16      // as in Flyte
	MaxTags         = 100
	MaxAnnotations  = 1000
	MaxEnvironment  = 10_000 // variables
	MaxNotification = 100    // notifications, and recipients of each

	// What is registered.
	MaxTaskBytes     = 8 << 20 // a template
	MaxSpecDepth     = 90      // levels of messages in a spec, also an execution's: Python reads 100, and answers wrap it in up to 4
	MaxWorkflowNodes = 50_000
	MaxRetries       = 10

	// What a process is started with, as in Linux.
	MaxArgument    = 128 << 10 // bytes of an argument, one at its end counted
	MaxCommandLine = 2 << 20   // bytes of all arguments, for each a pointer counted

	// Messages.
	MaxMessageBytes   = 64 << 20  // one request or reply
	MaxDecodedBytes   = 256 << 20 // one request once it is decoded, by estimate
	MaxInlineLiterals = 64 << 10  // literal maps up to this many bytes live in their row, larger ones are objects
	MaxInlineData     = 2 << 20   // outputs up to this many bytes are inline in answers

	// Pages of lists.
	MaxPageRows       = 10_000     // what is asked for above is cut, with a token for the rest
	MaxPageBytes      = 16 << 20   // likewise
	MaxSmallPageBytes = 3584 << 10 // for clients that take no message above 4 MiB, such as flytectl
	MaxFilters        = 50         // conditions of a list
	MaxFilterValues   = 1000       // of value_in, value_not_in
	MaxFilterBytes    = 256 << 10  // of all conditions: so many values, each as long as a name
	MaxPattern        = 1000       // bytes of a regular expression
	MaxPatternSteps   = 2000       // instructions of its program, in which what is repeated is written out
	MaxMatched        = 10_000     // bytes of an error that are matched: of one that is longer its beginning and its end
	MaxRecoveryItems  = 10_000     // executions of one recovery job
)
