"""Who is next and when. Custody is the spool's, the attempt is delivery's; here is only the choice."""
