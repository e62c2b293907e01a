package compiler

import (
	"fmt"
	"math/big"
	"regexp"
	"strconv"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// quantityForm is the form of Kubernetes' quantities: "500m", "1.5", "200Mi", "1e3".
var quantityForm = regexp.MustCompile(`^([+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40}))(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?[0-9]{1,2}))?$`)

var quantityUnits = map[string]*big.Rat{
	"n": power(10, -9), "u": power(10, -6), "m": power(10, -3), "k": power(10, 3), "M": power(10, 6), "G": power(10, 9),
	"T": power(10, 12), "P": power(10, 15), "E": power(10, 18),
	"Ki": power(2, 10), "Mi": power(2, 20), "Gi": power(2, 30), "Ti": power(2, 40), "Pi": power(2, 50), "Ei": power(2, 60),
}

func power(base, exponent int64) *big.Rat {
	abs := exponent
	if abs < 0 {
		abs = -abs
	}
	r := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(base), big.NewInt(abs), nil))
	if exponent < 0 {
		r.Inv(r)
	}
	return r
}

func parseQuantity(text string) (*big.Rat, bool) {
	parts := quantityForm.FindStringSubmatch(text)
	if parts == nil {
		return nil, false
	}
	amount, ok := new(big.Rat).SetString(parts[1])
	if !ok {
		return nil, false
	}
	if unit := quantityUnits[parts[2]]; unit != nil {
		amount.Mul(amount, unit)
	}
	if parts[3] != "" {
		exponent, err := strconv.ParseInt(parts[3], 10, 64)
		if err != nil {
			return nil, false
		}
		amount.Mul(amount, power(10, exponent))
	}
	return amount, true
}

// checkResources checks that amounts can be read and are not negative, that no request is above its limit, and that GPUs are whole
// numbers and not shared.
func checkResources(errs *Errors, node, where string, r *core.Resources) {
	read := func(field string, entries []*core.Resources_ResourceEntry) map[core.Resources_ResourceName]*big.Rat {
		amounts := make(map[core.Resources_ResourceName]*big.Rat, len(entries))
		for _, e := range entries {
			at := fmt.Sprintf("%s.%s[%s]", where, field, e.GetName())
			if _, known := core.Resources_ResourceName_name[int32(e.GetName())]; !known || e.GetName() == core.Resources_UNKNOWN {
				errs.add(InvalidValue, node, "Invalid value [%s]: the resource is unknown.", at)
				continue
			}
			amount, ok := parseQuantity(e.GetValue())
			switch {
			case !ok:
				errs.add(UnrecognizedValue, node, "Unrecognized value [%s] for %s: an amount is written like 500m, 1.5 or 200Mi.", e.GetValue(), at)
				continue
			case amount.Sign() < 0:
				errs.add(InvalidValue, node, "Invalid value [%s] for %s: it is negative.", e.GetValue(), at)
				continue
			case e.GetName() == core.Resources_GPU && !amount.IsInt():
				errs.add(InvalidValue, node, "Invalid value [%s] for %s: GPUs are whole.", e.GetValue(), at)
				continue
			}
			amounts[e.GetName()] = amount
		}
		return amounts
	}
	requests, limits := read("requests", r.GetRequests()), read("limits", r.GetLimits())
	for _, name := range []core.Resources_ResourceName{
		core.Resources_CPU, core.Resources_GPU, core.Resources_MEMORY, core.Resources_STORAGE, core.Resources_EPHEMERAL_STORAGE,
	} {
		request, limit := requests[name], limits[name]
		switch {
		case request == nil || limit == nil:
		case name == core.Resources_GPU && request.Cmp(limit) != 0:
			errs.add(InvalidValue, node, "Invalid value [%s.requests[GPU]]: the request of GPUs must equal their limit.", where)
		case request.Cmp(limit) > 0:
			errs.add(InvalidValue, node, "Invalid value [%s.requests[%s]]: the request is greater than the limit.", where, name)
		}
	}
}
