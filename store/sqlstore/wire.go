package sqlstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aloft-dev/aloft/store"
)

const (
	wireChannel = "aloft"
	wirePause   = 5 * time.Millisecond // between two notes: topics of commits in between go into the next one
	wireText    = 7000                 // bytes of a note; PostgreSQL takes 8,000
	wireAll     = "*"                  // the note that wakes all subscribers: there are more topics than fit into a note
)

// wire carries wake-ups between the servers of one database, as notes: texts with topics, by NOTIFY and LISTEN. A note is sent
// after the commits whose topics it has, outside of their transactions: no commit ever waits for it. Topics of commits while a
// note is on its way go into the next one. A note may be lost with its sender or the connection: subscribers also look at the
// store without a wake-up now and then.
type wire struct {
	hub  *store.Hub
	dsn  string
	db   *sql.DB
	log  *slog.Logger
	self string // begins the notes of this server, which ignores them

	mu     sync.Mutex
	topics map[store.Topic]struct{} // not sent yet
	ring   chan struct{}            // tells keepTelling that there are topics

	ctx    context.Context
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

func newWire(ctx context.Context, hub *store.Hub, dsn string, db *sql.DB, log *slog.Logger) (*wire, error) {
	w := &wire{hub: hub, dsn: dsn, db: db, log: log, self: rand.Text(), topics: make(map[store.Topic]struct{}), ring: make(chan struct{}, 1)}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	conn, err := w.connect(ctx)
	if err != nil {
		return nil, err
	}
	w.ended.Go(func() { w.keepListening(conn) })
	w.ended.Go(w.keepTelling)
	return w, nil
}

func (w *wire) close() {
	w.cancel()
	w.ended.Wait()
}

// tell wakes the subscribers of this process at once, and those of the other servers soon.
func (w *wire) tell(topics ...store.Topic) {
	if len(topics) == 0 {
		return
	}
	w.hub.Wake(topics...)
	w.mu.Lock()
	for _, topic := range topics {
		w.topics[topic] = struct{}{}
	}
	w.mu.Unlock()
	select {
	case w.ring <- struct{}{}:
	default:
	}
}

func (w *wire) keepTelling() {
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-w.ring:
		}
		ctx, cancel := context.WithTimeout(w.ctx, awayFor)
		// An error means that the connections for reading are lost, which the reads report.
		_, _ = w.db.ExecContext(ctx, "SELECT pg_notify($1, $2)", wireChannel, w.note())
		cancel()
		select {
		case <-w.ctx.Done():
			return
		case <-time.After(wirePause):
		}
	}
}

// note is the text of the next note, with all topics that were not sent.
func (w *wire) note() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := []string{w.self}
	length := 0
	for topic := range w.topics {
		lines = append(lines, string(topic))
		length += len(topic) + 1
	}
	clear(w.topics)
	if length > wireText {
		lines = []string{w.self, wireAll}
	}
	return strings.Join(lines, "\n")
}

func (w *wire) keepListening(conn *pgx.Conn) {
	for {
		err := w.listen(conn)
		for err != nil {
			if w.ctx.Err() != nil {
				return
			}
			w.log.Debug("wake-ups of other servers are late: the connection is made again", "error", err)
			select {
			case <-w.ctx.Done():
			case <-time.After(time.Second):
			}
			conn, err = w.connect(w.ctx)
		}
		w.hub.WakeAll() // for the notes that were missed without a connection
	}
}

func (w *wire) connect(ctx context.Context) (*pgx.Conn, error) {
	c, err := postgresConfig(w.dsn, nil)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "LISTEN "+wireChannel); err != nil {
		hangUp(conn)
		return nil, err
	}
	return conn, nil
}

func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// listen returns when the connection is lost.
func (w *wire) listen(conn *pgx.Conn) error {
	defer hangUp(conn)
	for {
		note, err := conn.WaitForNotification(w.ctx)
		if err != nil {
			return err
		}
		sender, topics, _ := strings.Cut(note.Payload, "\n")
		switch {
		case sender == w.self:
		case topics == wireAll:
			w.hub.WakeAll()
		default:
			for topic := range strings.SplitSeq(topics, "\n") {
				w.hub.Wake(store.Topic(topic))
			}
		}
	}
}
