package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
)

//go:embed migration/*.sql
var migrations embed.FS

// migrate brings the schema to this release's version. Each migration is one transaction. A database of a newer release is
// left as it is, and used if that release says that this one may.
func migrate(ctx context.Context, d *dialect, db *sql.DB) error {
	files, err := migrations.ReadDir("migration")
	if err != nil {
		return err
	}
	var steps []*goose.Migration
	for _, file := range files {
		number, _, _ := strings.Cut(file.Name(), "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return fmt.Errorf("migration %s: %w", file.Name(), err)
		}
		text, err := migrations.ReadFile(path.Join("migration", file.Name()))
		if err != nil {
			return err
		}
		script, err := d.render(string(text))
		if err != nil {
			return fmt.Errorf("migration %s: %w", file.Name(), err)
		}
		steps = append(steps, goose.NewGoMigration(version, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, script)
			return err
		}}, nil))
	}
	provider, err := goose.NewProvider(d.goose, db, nil, goose.WithGoMigrations(steps...), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	have, want, err := provider.GetVersions(ctx)
	if err != nil {
		return err
	}
	if have > want {
		var oldest int64
		if err := db.QueryRowContext(ctx, "SELECT oldest FROM compatibility").Scan(&oldest); err == nil && oldest <= want {
			return nil // the newer release has only added to the schema
		}
		return fmt.Errorf("the database was written by a newer release (schema %d, this one knows %d): use that release", have, want)
	}
	_, err = provider.Up(ctx)
	return err
}
