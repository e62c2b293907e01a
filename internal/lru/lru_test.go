package lru_test

import (
	"testing"

	"github.com/aloft-dev/aloft/internal/lru"
)

func want(t *testing.T, c *lru.Cache[string, int], key string, value int, there bool) {
	t.Helper()
	if got, ok := c.Get(key); ok != there || got != value {
		t.Errorf("%s: got %d, %t, want %d, %t", key, got, ok, value, there)
	}
}

func TestWhatWasUsedLastIsKept(t *testing.T) {
	t.Parallel()
	c := lru.New[string, int](10)
	c.Put("a", 1, 4)
	c.Put("b", 2, 4)
	want(t, c, "a", 1, true)
	c.Put("c", 3, 4)
	want(t, c, "b", 0, false)
	want(t, c, "a", 1, true)
	want(t, c, "c", 3, true)
}

func TestTheHeaviestValueIsKeptBesideTheOthersWhileItIsUsed(t *testing.T) {
	t.Parallel()
	c := lru.New[string, int](10)
	c.Put("a", 1, 5)
	c.Put("heavy", 2, 11)
	for i := range 100 {
		c.Put(string(rune('b'+i%20)), i, 1)
		want(t, c, "heavy", 2, true)
	}
	c.Put("heavier", 3, 1000)
	want(t, c, "heavy", 0, false)
	want(t, c, "heavier", 3, true)
}

func TestAValueIsReplacedWithItsWeight(t *testing.T) {
	t.Parallel()
	c := lru.New[string, int](10)
	for i := range 100 {
		c.Put("a", i, 9)
		want(t, c, "a", i, true)
	}
	c.Put("a", 1, 11)
	c.Put("a", 2, 5)
	want(t, c, "a", 2, true)
	c.Put("b", 3, 5)
	want(t, c, "a", 2, true)
	want(t, c, "b", 3, true)
}
