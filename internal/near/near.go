// Package near finds the name that a user probably meant by a word that is no name.
//
// Words and names come from outside, so the work is bounded:
//
//	bytes of the word, and of each name that is compared ≤ longest
//	bytes of all names that are compared ≤ most
//
// It takes a few hundred bytes of memory, and at most longest × most steps, which are some ten milliseconds.
package near

import "strings"

const (
	longest = 100
	most    = 64 << 10
)

// Name is the name that is nearest to word, or "" if none is near. A name is near if at most a third of the letters of word are
// wrong, or if the name begins with word. Case does not count. Names that are too long, and those after the bound on all names,
// are not compared.
func Name(word string, names []string) string {
	if len(word) > longest {
		return ""
	}
	lower, left := strings.ToLower(word), most
	best, least, begins := "", len(word)/3+1, ""
	for _, name := range names {
		if len(name) > longest {
			continue
		}
		if left -= len(name); left < 0 {
			break
		}
		other := strings.ToLower(name)
		if begins == "" && name != word && strings.HasPrefix(other, lower) {
			begins = name
		}
		if max(len(lower)-len(other), len(other)-len(lower)) >= max(least, 1) {
			continue // the lengths alone differ by too much
		}
		if d := distance(lower, other); d < least && d > 0 || d == 0 && name != word {
			best, least = name, d
		}
	}
	if best == "" && len(word) >= 3 {
		return begins
	}
	return best
}

// distance is how many letters of a have to be inserted, deleted, replaced or swapped with their neighbour to get b.
func distance(a, b string) int {
	var rows [3][3*longest + 1]int // ToLower replaces a byte that is no UTF-8 by three bytes
	before, last, row := rows[0][:len(b)+1], rows[1][:len(b)+1], rows[2][:len(b)+1]
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
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
