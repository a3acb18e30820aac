"""What lies on disk: manifest, index, codecs and tar members."""
