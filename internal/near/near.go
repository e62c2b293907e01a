// Package near finds the name that was meant by one that does not exist.
package near

import (
	"strings"
)

// Name is the one of names that word was most probably meant to be, and "" if none is near: a third of its letters may be
// wrong, or it continues with a '-', '_' or '.' after word. Capitals do not count.
func Name(word string, names []string) string {
	best, least := "", len(word)/3+1
	lower := strings.ToLower(word)
	for _, name := range names {
		if d := distance(lower, strings.ToLower(name)); d < least && d > 0 || d == 0 && name != word {
			best, least = name, d
		}
	}
	if best != "" || len(word) < 3 {
		return best
	}
	for _, name := range names {
		if name != word && strings.HasPrefix(strings.ToLower(name), lower) {
			return name
		}
	}
	return ""
}

// distance is how many letters have to be put in, left out, replaced or exchanged with their neighbour to make b of a.
func distance(a, b string) int {
	if len(a) > 100 || len(b) > 100 {
		return len(a) + len(b)
	}
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
