"""Archives, folders and photographs: from what lies somewhere to labelled images."""
