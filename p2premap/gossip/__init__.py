"""Who is here: membership, failure detection and facts about members, by gossip. Start reading at `core`."""
