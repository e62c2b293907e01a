package machine

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// demand is what an attempt asks of the place where it runs; 0: not stated.
type demand struct {
	milliCPU    int64
	memory      int64 // bytes
	memoryLimit int64 // bytes; a task that states none may use what there is
	gpu         int64
}

// demandOf merges what the task states with what the node states. Per resource, requests and limits apart, the node wins;
// a missing request is the limit, and no request is above its limit (so a node that raises a request alone stays capped
// by its task's limit, as in Flyte).
func demandOf(task, node *core.Resources) (demand, error) {
	type amounts map[core.Resources_ResourceName]*big.Rat
	read := func(into amounts, what string, entries []*core.Resources_ResourceEntry) error {
		for _, e := range entries {
			v, err := quantity(e.GetValue())
			if err != nil {
				return fmt.Errorf("%s of %s: %w", what, strings.ToLower(e.GetName().String()), err)
			}
			into[e.GetName()] = v
		}
		return nil
	}
	requests, limits := amounts{}, amounts{}
	for _, r := range []*core.Resources{task, node} { // the later one wins
		if err := read(requests, "request", r.GetRequests()); err != nil {
			return demand{}, err
		}
		if err := read(limits, "limit", r.GetLimits()); err != nil {
			return demand{}, err
		}
	}
	request := func(name core.Resources_ResourceName) *big.Rat {
		r, l := requests[name], limits[name]
		if r == nil || l != nil && r.Cmp(l) > 0 {
			return l
		}
		return r
	}
	return demand{
		milliCPU:    ceil(request(core.Resources_CPU), 1000),
		memory:      ceil(request(core.Resources_MEMORY), 1),
		memoryLimit: ceil(limits[core.Resources_MEMORY], 1),
		gpu:         ceil(request(core.Resources_GPU), 1),
	}, nil
}

// GPUs is how many GPUs an attempt of a node asks for: the task's, unless the node states another number.
func GPUs(task *core.TaskTemplate, node *core.TaskNode) (int64, error) {
	d, err := demandOf(task.GetContainer().GetResources(), node.GetOverrides().GetResources())
	return d.gpu, err
}

// ceil is v × unit as a whole number, rounded up as Kubernetes does; 0 for nil.
func ceil(v *big.Rat, unit int64) int64 {
	if v == nil {
		return 0
	}
	v = new(big.Rat).Mul(v, new(big.Rat).SetInt64(unit))
	n, rest := new(big.Int).QuoRem(v.Num(), v.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		n.Add(n, big.NewInt(1))
	}
	if !n.IsInt64() {
		return math.MaxInt64
	}
	return n.Int64()
}

var suffixes = map[string]*big.Rat{
	"n": big.NewRat(1, 1e9), "u": big.NewRat(1, 1e6), "m": big.NewRat(1, 1e3), "": big.NewRat(1, 1),
	"k": big.NewRat(1e3, 1), "M": big.NewRat(1e6, 1), "G": big.NewRat(1e9, 1),
	"T": big.NewRat(1e12, 1), "P": big.NewRat(1e15, 1), "E": big.NewRat(1e18, 1),
	"Ki": big.NewRat(1<<10, 1), "Mi": big.NewRat(1<<20, 1), "Gi": big.NewRat(1<<30, 1),
	"Ti": big.NewRat(1<<40, 1), "Pi": big.NewRat(1<<50, 1), "Ei": big.NewRat(1<<60, 1),
}

// quantity reads a Kubernetes quantity: a decimal number and one suffix, or a power of ten ("500m", "1.5Gi", "2e3").
func quantity(text string) (*big.Rat, error) {
	refused := fmt.Errorf("%q is no quantity: write a number and one of n u m k M G T P E Ki Mi Gi Ti Pi Ei, as in 500m or 1.5Gi", text)
	end := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' && r != '+' })
	if end < 0 {
		end = len(text)
	}
	number, suffix := text[:end], text[end:]
	// The bounds keep an absurd number from filling the memory.
	if len(text) > 64 || strings.Contains(strings.TrimPrefix(number, "+"), "+") {
		return nil, refused
	}
	v, ok := new(big.Rat).SetString(number)
	if !ok {
		return nil, refused
	}
	if unit := suffixes[suffix]; unit != nil {
		return v.Mul(v, unit), nil
	}
	if suffix[0] != 'e' && suffix[0] != 'E' {
		return nil, refused
	}
	power, err := strconv.Atoi(suffix[1:])
	if err != nil || power < -30 || power > 30 {
		return nil, refused
	}
	ten := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(power, -power))), nil)
	if power < 0 {
		return v.Quo(v, new(big.Rat).SetInt(ten)), nil
	}
	return v.Mul(v, new(big.Rat).SetInt(ten)), nil
}
