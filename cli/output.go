package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft/internal/legible"
)

// forMachines is the JSON of one message, with the protocol's own field names.
func forMachines(m proto.Message) ([]byte, error) {
	return legible.JSON(m, protojson.MarshalOptions{UseProtoNames: true, Multiline: true, Indent: "  "}.Marshal)
}

// printJSON writes one message as one JSON document.
func printJSON(w io.Writer, m proto.Message) error {
	encoded, err := forMachines(m)
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	_, err = fmt.Fprintln(w, string(encoded))
	return err
}

// printJSONWith is printJSON with more fields beside those of the message.
func printJSONWith(w io.Writer, m proto.Message, more map[string]any) error {
	encoded, err := forMachines(m)
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	document := map[string]any{}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(encoded, &fields); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	for name, value := range fields {
		document[name] = value
	}
	maps.Copy(document, more)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(document)
}

// table writes rows in columns; the first row is the heading. On a terminal, the last column gets the rest of the line.
func table(w io.Writer, rows [][]string) error {
	width := 0
	if isTerminal(w) {
		width, _ = terminalSize(w)
	}
	return tableWithin(w, rows, width)
}

// tableWithin writes rows in columns, in lines of at most width characters, unless the last column would have less than 20;
// width 0 means any length.
func tableWithin(w io.Writer, rows [][]string, width int) error {
	const between = 2
	widths := map[int]int{}
	for _, row := range rows {
		for i, cell := range row {
			row[i] = strings.Join(strings.Fields(cell), " ") // in one line
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	room := width
	for i := range len(rows[0]) - 1 {
		room -= widths[i] + between
	}
	t := tabwriter.NewWriter(w, 0, 0, between, ' ', 0)
	for _, row := range rows {
		if last := len(row) - 1; width > 0 {
			row[last] = shorten(row[last], max(room, 20))
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

// shorten cuts a text to at most width characters; "…" marks the cut.
func shorten(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return strings.TrimRight(string([]rune(text)[:width-1]), " ") + "…"
}

// took is a duration in the one or two largest units.
func took(d time.Duration) string {
	switch {
	case d < 0:
		return "0 ms"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// elapsed is the time from start to end, or to now if end is nil; empty if start is nil.
func elapsed(start, end *timestamppb.Timestamp, now time.Time) string {
	switch {
	case start == nil:
		return ""
	case end == nil:
		return took(now.Sub(start.AsTime()))
	}
	return took(end.AsTime().Sub(start.AsTime()))
}

// executionTime is how long an execution has run, the same in all lists: since its start, or, as long as it has not started,
// since its creation.
func executionTime(created, started, ended *timestamppb.Timestamp, now time.Time) string {
	if started == nil {
		started = created
	}
	return elapsed(started, ended, now)
}

// isTerminal says whether the output is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// takesEscapes says whether the output is a terminal that takes escapes that move the cursor and erase; with TERM=dumb it shows
// them.
func takesEscapes(w io.Writer) bool { return isTerminal(w) && os.Getenv("TERM") != "dumb" } //nolint:forbidigo // by convention the kind of a terminal is in this variable

// wantsColours says whether colours are wanted (https://no-color.org).
func wantsColours(w io.Writer) bool { return takesEscapes(w) && os.Getenv("NO_COLOR") == "" } //nolint:forbidigo // by convention users set this variable for all programs

// terminalSize is the size of the terminal, in characters.
func terminalSize(w io.Writer) (width, height int) {
	if f, ok := w.(*os.File); ok {
		if width, height, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width, height
		}
	}
	return 100, 40
}

// clip shortens a line to a width. Escapes of colours do not count, and there are no other escapes (printable).
func clip(line string, width int) string {
	visible, escape, coloured := 0, false, false
	for i, r := range line {
		switch {
		case r == '\x1b':
			escape, coloured = true, true
		case escape:
			escape = r != 'm'
		default:
			if visible++; visible > width {
				if coloured {
					return line[:i] + "\x1b[0m"
				}
				return line[:i]
			}
		}
	}
	return line
}

func pad(text string, width int) string {
	if n := utf8.RuneCountInString(text); n < width {
		return text + strings.Repeat(" ", width-n)
	}
	return text
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
