// Package near finds the name that was meant by one that does not exist.
//
// Words and names come from outside, so how much of them is compared is bounded:
//
//	bytes of the word, and of each name that is compared ≤ longest
//	bytes of all names that are compared ≤ most
//
// It needs no memory beside a few hundred bytes, and at most longest × most steps, which are some ten milliseconds.
package near

import "strings"

const (
	longest = 100
	most    = 64 << 10
)

// Name is the one of names that word was most probably meant to be, and "" if none is near: a third of its letters may be
// wrong, or it begins with word. Capitals do not count. The first names are compared, those that are too long are not.
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
			continue // so many letters are too many or too few
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

// distance is how many letters have to be put in, left out, replaced or exchanged with their neighbour to make b of a.
func distance(a, b string) int {
	var rows [3][3*longest + 1]int // ToLower puts three bytes in the place of one that is no text
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
