package main

import (
	"testing"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/ha"
	"proxyd/internal/ha/election"
	"proxyd/internal/ha/rehearsal"
)

// sceneOf is what a node with no VIP in its file, such as a witness, simulates.
func sceneOf(second ha.State) rehearsal.Scene {
	k := new(cluster)
	c := &config.Config{}
	c.Cluster.Timing = config.Timing{Heartbeat: 40 * time.Millisecond, Lease: 240 * time.Millisecond, Guard: 30 * time.Millisecond}
	k.set.Store(&addresses{config: c})
	return k.scene(ha.View{
		Nodes: []ha.NodeView{{ID: "w", Name: "w", Witness: true}, {ID: "a", Name: "a"}, {ID: "b", Name: "b", State: second}},
		VIPs:  []ha.VIPView{{Name: "public", IDs: []election.ID{"a"}, Prefer: []election.ID{"a", "b", "w"}}},
	})
}

func TestAWitnessSimulatesWhatOthersHold(t *testing.T) {
	played, err := rehearsal.Play(sceneOf(ha.Up), rehearsal.Kill, "a")
	if err != nil || len(played) != 1 || played[0].VIP != "public" || played[0].To != "b" {
		t.Errorf("killing the holder: %+v, %v", played, err)
	}
}

func TestWhoStandsByTakesNothingInASimulation(t *testing.T) {
	played, err := rehearsal.Play(sceneOf(ha.Draining), rehearsal.Kill, "a")
	if err != nil || len(played) != 1 || played[0].To != "" {
		t.Errorf("killing the holder while the other stands by: %+v, %v", played, err)
	}
}
